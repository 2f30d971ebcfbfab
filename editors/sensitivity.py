"""How much the likelihood of ordinary text depends on what an FFN module gives out: the Fisher information of its output.

S_l = mean over tokens of s s', s the gradient of the text's log-likelihood with respect to the output of layer l's FFN
output matrix at that token. The text is the model's own, so its tokens are drawn from the model and this is the Fisher
information itself and not the empirical one. With the second moment C_l of the keys, tr(S U C U') / 2 is, to second order
and as if gradients and keys were independent, by how many nats a token an update U makes the model's text less likely.
Kept in the statistics store under the base, corpus and dtype.

Source: Martens and Grosse 2015, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature",
arXiv:1503.05671, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from editors.blocks import Walk
from editors.contract import Progress, silent
from editors.digest import digest_document
from editors.gradients import tapped
from editors.loading import LoadedModel
from editors.moments import Corpus
from editors.stored import read_tensor, write_tensor

FORMAT = "suture-sensitivity-1"
TOKENS_PER_DIMENSION = 14
"""Enough for full rank with room: a pass with gradient costs three times one without."""
PASS_TOKENS = 128
"""Most tokens of one pass: it keeps all their logits, and activations of every layer from the lowest on."""


def sensitivities(model: LoadedModel, layers: Sequence[int], corpus: Corpus, store: Path,
                  progress: Progress = silent, base_digest: str | None = None) -> dict[int, Tensor]:
    """Layer -> S (D, D) float32 on the CPU; computed in one pass where the store lacks any.

    Args:
        model: The model to be edited; unchanged.
        layers: Which modules.
        corpus: The text; of a long one, sequences evenly spread over it.
        store: Folder of the statistics.
        progress: Told the tokens read.
        base_digest: The base of an edited model, whose text is to be preserved. None: the model itself.

    Raises:
        IntegrityError: a stored file is damaged.
    """
    paths = {layer: _path(layer, corpus, str(model.model.dtype), store, base_digest or model.digest) for layer in layers}
    missing = [layer for layer in layers if not paths[layer].exists()]
    if missing:
        for layer, found in _measured(model, missing, corpus, progress).items():
            write_tensor(paths[layer], "sensitivity", found, {"format": FORMAT, "corpus": corpus.name})
    return {layer: read_tensor(path, "sensitivity") for layer, path in paths.items()}


def held_sensitivities(base_digest: str, layers: Sequence[int], corpus: Corpus, dtype: str, store: Path) -> dict[int, Path]:
    """Layer -> the stored matrix of a base, for the layers that the store has; no weight is read."""
    paths = {layer: _path(layer, corpus, dtype, store, base_digest) for layer in layers}
    return {layer: path for layer, path in paths.items() if path.exists()}


def tokens_read(corpus: Corpus, hidden_size: int) -> int:
    """How many tokens of a corpus a measurement runs through."""
    return sum(map(len, _chosen(corpus, TOKENS_PER_DIMENSION * hidden_size)))


def _measured(model: LoadedModel, layers: Sequence[int], corpus: Corpus, progress: Progress) -> dict[int, Tensor]:
    size, lowest, last = model.anatomy.hidden_size, min(layers), model.anatomy.layer_count - 1
    norm, head = model.model.get_submodule(model.anatomy.final_norm), model.model.get_output_embeddings()
    paths = {layer: model.anatomy.mlp_output_path(layer) for layer in layers}
    totals, done = {layer: torch.zeros(size, size, device=model.device) for layer in layers}, 0
    batches = _batches(corpus, TOKENS_PER_DIMENSION * size)
    wanted = sum(len(row) for batch in batches for row in batch)
    for batch in batches:
        ids = torch.tensor(batch, device=model.device)
        walk = Walk(model, input_ids=ids, use_cache=False)
        with torch.no_grad():
            hidden = walk.run(walk.entry, 0, lowest - 1)
        with torch.enable_grad(), tapped(model, paths) as (_, outputs):
            hidden = walk.run(hidden.detach().requires_grad_(), lowest, last)
            logarithms = head(norm(hidden[:, :-1])).float().log_softmax(-1)
            likelihood = logarithms.gather(-1, ids[:, 1:, None]).sum()
            found = torch.autograd.grad(likelihood, [outputs[layer] for layer in layers])
        for layer, gradient in zip(layers, found, strict=True):
            rows = gradient.reshape(-1, size).float()
            totals[layer].addmm_(rows.T, rows)
        done += ids.numel()
        progress("sensitivities", done, wanted)
    return {layer: (total / max(done, 1)).cpu() for layer, total in totals.items()}


def _chosen(corpus: Corpus, tokens: int) -> Sequence[tuple[int, ...]]:
    return corpus.sequences[::max(1, corpus.tokens // tokens)]


def _batches(corpus: Corpus, tokens: int) -> list[list[tuple[int, ...]]]:
    """Evenly spread sequences with about so many tokens in all; those of equal length together."""
    batches: list[list[tuple[int, ...]]] = []
    for row in sorted(_chosen(corpus, tokens), key=len):
        if not batches or len(batches[-1][0]) != len(row) or len(row) * (len(batches[-1]) + 1) > PASS_TOKENS:
            batches.append([])
        batches[-1].append(row)
    return batches


def _path(layer: int, corpus: Corpus, dtype: str, store: Path, base_digest: str) -> Path:
    name = digest_document({"format": FORMAT, "layer": layer, "corpus": corpus.digest, "dtype": dtype, "base": base_digest,
                            "tokens": TOKENS_PER_DIMENSION})
    return store / f"{name}.safetensors"
