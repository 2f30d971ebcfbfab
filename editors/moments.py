"""Second moments of FFN keys: what a model's text looks like to the matrices that are edited.

C_l = mean over tokens of k k', k the input of layer l's FFN output matrix; for methods that edit other maps as well, of what
those read (`linear_maps.Vector`). One pass over the corpus serves all that are asked for and runs no layer above the highest
of them. Kept under the digest of the weights that determine it, the
corpus and the dtype; verified when read; written atomically. An edited model is held by the moments of its base where
they are in the store: what is to be preserved is the base's text, and an edit of rank N moves them little.

Source: Meng et al. 2022, arXiv:2202.05262, section 3.1; Meng et al. 2023, arXiv:2210.07229, eq. 13.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from editors.anatomy import Anatomy
from editors.blocks import Walk, captured_input
from editors.contract import Progress, silent
from editors.digest import digest_document, digest_tensor
from editors.linear_maps import Vector
from editors.loading import LoadedModel
from editors.stored import read_tensor, write_tensor, write_whole

Site = tuple[int, Vector]
"""A layer, and which vector in it."""
FORMAT = "suture-second-moment-1"
CHUNK_TOKENS = 4096
MOMENT = re.compile(r"[0-9a-f]{64}\.safetensors")
"""How the file of a moment is called."""


@dataclass(frozen=True)
class Corpus:
    """Text as token sequences, each read on its own."""

    name: str
    sequences: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        """How many tokens it has."""
        return sum(len(sequence) for sequence in self.sequences)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the token ids."""
        return digest_document([list(sequence) for sequence in self.sequences])


def corpus_of_texts(name: str, texts: Sequence[str], model: LoadedModel, max_tokens: int, window: int = 256) -> Corpus:
    """Texts cut into windows of at most `window` tokens, up to `max_tokens` in all."""
    sequences: list[tuple[int, ...]] = []
    left = max_tokens
    for text in texts:
        ids = model.tokenizer(text, add_special_tokens=False)["input_ids"][:left]
        sequences += [tuple(ids[start:start + window]) for start in range(0, len(ids), window)]
        left -= len(ids)
        if left <= 0:
            break
    return Corpus(name, tuple(sequence for sequence in sequences if len(sequence) > 1))


def second_moments(model: LoadedModel, layers: Sequence[int], corpus: Corpus, store: Path,
                   progress: Progress = silent, base_digest: str | None = None) -> dict[int, Tensor]:
    """Layer -> C (F, F) float32 on the CPU; computed in one pass where the store lacks any.

    Args:
        model: The model to be edited.
        layers: Which moments.
        corpus: The text.
        store: Folder of the statistics.
        progress: Told the tokens read.
        base_digest: The base of an edited model; its moments are taken where they are stored.

    Raises:
        IntegrityError: a stored file is damaged.
    """
    files = moment_files(model, layers, corpus, store, progress, base_digest)
    return {layer: read_moment(path) for layer, path in files.items()}


def moment_files(model: LoadedModel, layers: Sequence[int], corpus: Corpus, store: Path,
                 progress: Progress = silent, base_digest: str | None = None) -> dict[int, Path]:
    """Layer -> the stored moment of its keys; those that the store lacks are computed in one pass. Arguments:
    `second_moments`.
    """
    files = site_files(model, keys_of(layers), corpus, store, progress, base_digest)
    return {layer: path for (layer, _), path in files.items()}


def keys_of(layers: Iterable[int]) -> list[Site]:
    """The layers' FFN keys."""
    return [(layer, "key") for layer in layers]


def site_files(model: LoadedModel, sites: Sequence[Site], corpus: Corpus, store: Path,
               progress: Progress = silent, base_digest: str | None = None) -> dict[Site, Path]:
    """The same of any vectors. Arguments: `second_moments`."""
    digests = dict(model.tensor_digests)
    paths = {site: _path(model, site, corpus, store, base_digest, digests) for site in sites}
    missing = [site for site in sites if not paths[site].exists()]
    if missing:
        for site, moment in measured_moments(model, missing, corpus, progress).items():
            write_tensor(paths[site], "second_moment", moment,
                         {"format": FORMAT, "corpus": corpus.name, "tokens": str(corpus.tokens)})
    return paths


def read_moment(path: Path) -> Tensor:
    """A stored moment (F, F) float32 on the CPU.

    Raises:
        IntegrityError: the file is damaged.
    """
    return read_tensor(path, "second_moment")


def held_moments(base_digest: str, layers: Sequence[int], corpus: Corpus, dtype: str, store: Path) -> dict[int, Path]:
    """Layer -> the stored moment of a base's keys, for the layers that the store has; no weight is read.

    `dtype` is that of the model in memory, as torch writes it.
    """
    return {layer: path for (layer, _), path in held_sites(base_digest, keys_of(layers), corpus, dtype, store).items()}


def held_sites(base_digest: str, sites: Sequence[Site], corpus: Corpus, dtype: str, store: Path) -> dict[Site, Path]:
    """The same of any vectors."""
    found = {site: _pointed(_pointer(base_digest, _terms(site, corpus, dtype), store)) for site in sites}
    return {site: path for site, path in found.items() if path is not None}


def weights_digest(model: LoadedModel, layer: int, digests: dict[str, str] | None = None) -> str:
    """SHA-256 of every weight that layer `layer`'s keys depend on: all below, and its own but the output matrix.

    `digests` holds tensors whose digest is known (a checkpoint's, or those of earlier calls) and takes those of this one.
    """
    digests = {} if digests is None else digests
    own_output = model.anatomy.mlp_output_path(layer)
    names = []
    for name, _ in model.model.named_parameters():
        block = model.anatomy.layer_of(name)
        below = block is not None and (block < layer or (block == layer and not name.startswith(own_output)))
        if below or re.search(r"embed|wte|wpe", name):
            names.append(name)
    for name in names:
        if name not in digests:
            digests[name] = digest_tensor(model.model.get_parameter(name))
    return digest_document({name: digests[name] for name in names})


@torch.no_grad()
def measured_moments(model: LoadedModel, sites: Sequence[Site], corpus: Corpus, progress: Progress) -> dict[Site, Tensor]:
    """C (F, F) float32 on the CPU, F the size of the vector, measured now and kept nowhere."""
    totals: dict[Site, Tensor] = {}
    modules = {site: model.model.get_submodule(_reader(model.anatomy, site)) for site in sites}
    done = 0
    for batch in _batches(corpus):
        ids = torch.tensor(batch, device=model.device)
        walk = Walk(model, input_ids=ids, use_cache=False)
        hidden, start = walk.entry, 0
        for layer in sorted({layer for layer, _ in sites}):
            with ExitStack() as stack:
                read = {site: stack.enter_context(captured_input(modules[site])) for site in sites if site[0] == layer}
                hidden, start = walk.run(hidden, start, layer), layer + 1
            for site, found in read.items():
                vectors = found[0].reshape(-1, found[0].shape[-1]).float()
                empty = vectors.new_zeros(vectors.shape[1], vectors.shape[1])
                totals.setdefault(site, empty).addmm_(vectors.T, vectors)
        done += ids.numel()
        progress("second moments", done, corpus.tokens)
    return {site: (total / max(done, 1)).cpu() for site, total in totals.items()}


def _reader(shapes: Anatomy, site: Site) -> str:
    """Path of a module whose input the vector is."""
    layer, vector = site
    if vector == "heads":
        return shapes.attention_output_path(layer)
    return shapes.mlp_output_path(layer) if vector == "key" else shapes.mlp_input_paths(layer)[0]


def _batches(corpus: Corpus) -> list[list[tuple[int, ...]]]:
    """Sequences of equal length together, so that nothing is padding."""
    by_length: dict[int, list[tuple[int, ...]]] = {}
    for sequence in corpus.sequences:
        by_length.setdefault(len(sequence), []).append(sequence)
    batches = []
    for length, group in sorted(by_length.items()):
        rows = max(1, CHUNK_TOKENS // length)
        batches += [group[start:start + rows] for start in range(0, len(group), rows)]
    return batches


def _path(model: LoadedModel, site: Site, corpus: Corpus, store: Path, base_digest: str | None,
          digests: dict[str, str]) -> Path:
    """Where a moment is kept: the base's if stored, else the model's own.

    A base's files are found through a pointer named by the base's digest, because its weights are not in memory.
    """
    terms = _terms(site, corpus, str(model.model.dtype))
    pointer = _pointer(base_digest, terms, store) if base_digest else None
    if pointer and (pointed := _pointed(pointer)):
        return pointed
    path = store / f"{digest_document({**terms, 'weights': weights_digest(model, site[0], digests)})}.safetensors"
    if pointer and base_digest == model.digest:
        write_whole(pointer, lambda scratch: scratch.write_text(path.name))
    return path


def _terms(site: Site, corpus: Corpus, dtype: str) -> dict[str, str | int]:
    layer, vector = site
    terms: dict[str, str | int] = {"format": FORMAT, "layer": layer, "corpus": corpus.digest, "dtype": dtype}
    return terms if vector == "key" else {**terms, "vector": vector}


def _pointer(base_digest: str, terms: Mapping[str, str | int], store: Path) -> Path:
    return store / f"base-{digest_document({**terms, 'base': base_digest})}.txt"


def _pointed(pointer: Path) -> Path | None:
    """The moment that a pointer names; None where there is no pointer, or one that rotted: what it names is made again."""
    try:
        name = pointer.read_text("utf-8")
    except (OSError, ValueError):
        return None
    path = pointer.with_name(name) if MOMENT.fullmatch(name) else None
    return path if path and path.exists() else None
