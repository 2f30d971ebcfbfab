"""Second moments of FFN keys: what a model's text looks like to the matrices that are edited.

C_l = mean over tokens of k k', k the input of layer l's FFN output matrix. One pass over the corpus serves every layer
asked for and runs no layer above the highest of them. Kept under the digest of the weights that determine it, the
corpus and the dtype; verified when read; written atomically. An edited model is held by the moments of its base where
they are in the store: what is to be preserved is the base's text, and an edit of rank N moves them little.

Source: Meng et al. 2022, arXiv:2202.05262, section 3.1; Meng et al. 2023, arXiv:2210.07229, eq. 13.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from editors.blocks import Walk, captured_input
from editors.contract import Progress, silent
from editors.digest import digest_document, digest_tensor
from editors.errors import IntegrityError
from editors.loading import LoadedModel

FORMAT = "suture-second-moment-1"
CHUNK_TOKENS = 4096


@dataclass(frozen=True)
class Corpus:
    """Text as token sequences, each read on its own."""

    name: str
    sequences: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        """How many tokens it has."""
        return sum(len(sequence) for sequence in self.sequences)

    @property
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
    digests: dict[str, str] = {}
    paths = {layer: _path(model, layer, corpus, store, base_digest, digests) for layer in layers}
    missing = [layer for layer in layers if not paths[layer].exists()]
    if missing:
        for layer, moment in _measured(model, missing, corpus, progress).items():
            _write(paths[layer], moment, corpus)
    return {layer: _read(path) for layer, path in paths.items()}


def weights_digest(model: LoadedModel, layer: int, digests: dict[str, str] | None = None) -> str:
    """SHA-256 of every weight that layer `layer`'s keys depend on: all below, and its own but the output matrix.

    `digests` holds tensors digested by earlier calls and takes those of this one.
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
def _measured(model: LoadedModel, layers: Sequence[int], corpus: Corpus, progress: Progress) -> dict[int, Tensor]:
    size, top, done = model.anatomy.inner_size, max(layers), 0
    totals = {layer: torch.zeros(size, size, device=model.device) for layer in layers}
    modules = {layer: model.model.get_submodule(model.anatomy.mlp_output_path(layer)) for layer in layers}
    for batch in _batches(corpus):
        ids = torch.tensor(batch, device=model.device)
        walk = Walk(model, input_ids=ids, use_cache=False)
        hidden, start = walk.entry, 0
        for layer in sorted(layers):
            with captured_input(modules[layer]) as found:
                hidden = walk.run(hidden, start, layer)
            keys = found[0].reshape(-1, size).float()
            totals[layer].addmm_(keys.T, keys)
            start = layer + 1
            if layer == top:
                break
        done += ids.numel()
        progress("second moments", done, corpus.tokens)
    return {layer: (total / max(done, 1)).cpu() for layer, total in totals.items()}


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


def _path(model: LoadedModel, layer: int, corpus: Corpus, store: Path, base_digest: str | None,
          digests: dict[str, str]) -> Path:
    """Where a moment is kept: the base's if stored, else the model's own.

    A base's files are found through a pointer named by the base's digest, because its weights are not in memory.
    """
    what = {"format": FORMAT, "layer": layer, "corpus": corpus.digest, "dtype": str(model.model.dtype)}
    pointer = store / f"base-{digest_document({**what, 'base': base_digest})}.txt"
    if base_digest and pointer.exists() and (store / pointer.read_text()).exists():
        return store / pointer.read_text()
    path = store / f"{digest_document({**what, 'weights': weights_digest(model, layer, digests)})}.safetensors"
    if base_digest == model.digest:
        store.mkdir(parents=True, exist_ok=True)
        pointer.write_text(path.name)
    return path


def _write(path: Path, moment: Tensor, corpus: Corpus) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    os.close(descriptor)
    try:
        save_file({"second_moment": moment.contiguous()}, scratch, metadata={
            "format": FORMAT, "sha256": digest_tensor(moment), "corpus": corpus.name, "tokens": str(corpus.tokens)})
        os.replace(scratch, path)
    finally:
        Path(scratch).unlink(missing_ok=True)


def _read(path: Path) -> Tensor:
    try:
        with safe_open(path, framework="pt") as stored:
            moment, metadata = stored.get_tensor("second_moment"), stored.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise IntegrityError(f"{path} cannot be read: {error}", f"rm {path}") from error
    if digest_tensor(moment) != metadata.get("sha256"):
        raise IntegrityError(f"{path} does not have the digest it was written with", f"rm {path}")
    return moment
