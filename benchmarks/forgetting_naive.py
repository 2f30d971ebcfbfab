"""The released detector as it is written: one forward and one backward of the whole model a layer, point and token.

It is the reference of the detector's speed, and never run whole: a part is timed, evenly spread over layers, and the
rest counted.

Source: Wu et al. 2023, "DEPN", arXiv:2310.20138, eq. 3, and its published code.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from editors.loading import LoadedModel
from editors.secret_rows import SecretRow

POINTS = 20


def naive_passes(rows: Sequence[SecretRow], layers: int, points: int = POINTS) -> int:
    """Forward and backward runs that the whole detection takes."""
    return layers * points * sum(len(row.secret) for row in rows)


def naive_seconds(model: LoadedModel, rows: Sequence[SecretRow], passes: int, points: int = POINTS) -> float:
    """CPU seconds of the whole detection, from `passes` of its runs: rows, tokens, layers and points in turn."""
    began = time.process_time()
    for number in range(passes):
        row = rows[number % len(rows)]
        layer = number * 7 % model.anatomy.layer_count
        attribution(model, row, number % len(row.secret), layer, (number % points + 1) / points)
    return (time.process_time() - began) / passes * naive_passes(rows, model.anatomy.layer_count, points)


def attribution(model: LoadedModel, row: SecretRow, token: int, layer: int, share: float) -> Tensor:
    """(F,) the gradient of P(token | text and the secret's tokens before it) in one layer's factors, all at `share`."""
    ids = torch.tensor([row.ids[:row.prompt_length + token]], device=model.device)
    factor = torch.full((model.anatomy.inner_size,), share, device=model.device, requires_grad=True)
    module = model.model.get_submodule(model.anatomy.mlp_output_path(layer))
    handle = module.register_forward_pre_hook(lambda _, arguments: (arguments[0] * factor, *arguments[1:]))
    try:
        with torch.enable_grad():
            logits = model.model(input_ids=ids, use_cache=False).logits[0, -1].float()
            return torch.autograd.grad(logits.softmax(-1)[row.secret[token]], factor)[0]
    finally:
        handle.remove()
