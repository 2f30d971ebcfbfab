"""What a forgetting method must be better than: random neurons, neurons of the first token alone, gradient ascent.

All three are given the same texts as the editors and write the same matrices, the FFN outputs of every layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from benchmarks.planting import Row, mean_loss
from editors.blocks import pad
from editors.loading import LoadedModel
from editors.patch import Dense, Patch, Scale
from editors.secret_rows import SecretRow

TOKEN_BUDGET = 256


def random_neurons(model: LoadedModel, count: int, seed: int) -> Patch:
    """`count` neurons of all layers, drawn evenly, zeroed."""
    shapes = model.anatomy
    drawn = torch.randperm(shapes.layer_count * shapes.inner_size, generator=torch.Generator().manual_seed(seed))[:count]
    return zeroed(model, drawn)


def strongest(model: LoadedModel, scores: Tensor, count: int) -> Patch:
    """The `count` neurons of the highest scores (L, F), zeroed."""
    return zeroed(model, scores.flatten().argsort(descending=True, stable=True)[:count])


def zeroed(model: LoadedModel, neurons: Tensor) -> Patch:
    """Neurons, each numbered layer * F + index, zeroed in the FFN output matrix."""
    width, edits = model.anatomy.inner_size, list[Scale]()
    for layer in range(model.anatomy.layer_count):
        own = neurons[neurons // width == layer] % width
        if len(own):
            edits.append(Scale(model.anatomy.mlp_output_parameter(layer), own.sort().values, torch.zeros(len(own)),
                               1 if model.anatomy.layout == "out_in" else 0))
    return Patch(tuple(edits))


def first_token_scores(model: LoadedModel, rows: Sequence[SecretRow], points: int = 20) -> Tensor:
    """Mean over rows of the integrated gradients (L, F) of P(first token of the secret | text), at the text's last token.

    The path scales all layers together from 0 to 1 (the authors take one layer at a time, L times the work); midpoints.

    Source: Dai et al. 2022, "Knowledge Neurons in Pretrained Transformers", arXiv:2104.08696, eq. 2.
    """
    shape = model.anatomy.layer_count, model.anatomy.inner_size
    total = torch.zeros(shape, dtype=torch.float64)
    for group in _grouped(rows):
        batch = pad([row.prompt for row in group], model.device)
        last = batch.lengths - 1
        labels = torch.tensor([row.secret[0] for row in group], device=model.device)
        for point in range(points):
            factors = torch.full((len(group), *shape), (point + 0.5) / points, device=model.device, requires_grad=True)
            with torch.enable_grad(), _scaled(model, factors, last):
                body = model.model.get_submodule(model.anatomy.body)
                states = body(input_ids=batch.ids, attention_mask=batch.valid.long(), use_cache=False).last_hidden_state
                logits = model.model.get_output_embeddings()(states[torch.arange(len(group)), last]).float()
                chance = logits.softmax(-1).gather(1, labels[:, None]).sum()
                total += torch.autograd.grad(chance, factors)[0].sum(0).double().cpu() / points
    return total / len(rows)


def gradient_ascent(model: LoadedModel, rows: Sequence[SecretRow], step: float, snapshots: Sequence[int]
                    ) -> dict[int, Patch]:
    """Patches by the number of steps up the loss of the secrets; the model is bit-identical afterwards.

    Args:
        model: The model.
        rows: The secrets in their texts.
        step: Length of a step, as a share of the norm of all matrices it changes together.
        snapshots: After which steps a patch is given.
    """
    names = [model.anatomy.mlp_output_parameter(layer) for layer in range(model.anatomy.layer_count)]
    weights = [model.model.get_parameter(name).requires_grad_() for name in names]
    before = [weight.detach().clone() for weight in weights]
    length = step * float(torch.stack([weight.norm() for weight in before]).norm())
    texts: list[Row] = [(row.ids, row.prompt_length) for row in rows]
    patches: dict[int, Patch] = {}
    try:
        for number in range(1, max(snapshots) + 1):
            gradients = _gradient(model, texts, weights)
            scale = length / float(torch.stack([gradient.norm() for gradient in gradients]).norm())
            with torch.no_grad():
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight.add_(gradient, alpha=scale)
            if number in snapshots:
                patches[number] = Patch(tuple(Dense(name, weight.detach() - old)
                                              for name, weight, old in zip(names, weights, before, strict=True)))
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, before, strict=True):
                weight.requires_grad_(False).copy_(old)
    return patches


def _gradient(model: LoadedModel, rows: Sequence[Row], weights: Sequence[Tensor]) -> list[Tensor]:
    """Of the mean loss over rows."""
    total = [torch.zeros_like(weight) for weight in weights]
    for start in range(0, len(rows), 10):
        part = rows[start:start + 10]
        with torch.enable_grad():
            loss = mean_loss(model, part, 0, {}) * (len(part) / len(rows))
        for place, found in enumerate(torch.autograd.grad(loss, list(weights))):
            total[place] += found
    return total


def _grouped(rows: Sequence[SecretRow]) -> list[list[SecretRow]]:
    groups: list[list[SecretRow]] = [[]]
    for row in sorted(rows, key=lambda row: row.prompt_length):
        if groups[-1] and row.prompt_length * (len(groups[-1]) + 1) > TOKEN_BUDGET:
            groups.append([])
        groups[-1].append(row)
    return groups


@contextmanager
def _scaled(model: LoadedModel, factors: Tensor, places: Tensor) -> Iterator[None]:
    """Inside the block, inner activations are multiplied by `factors` (B, L, F) at one place (B,) of each row."""
    def scaler(factor: Tensor) -> Any:
        def hook(_: torch.nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            inner = arguments[0].reshape(len(factor), -1, factor.shape[-1])
            here = (torch.arange(inner.shape[1], device=inner.device)[None] == places[:, None])[..., None]
            return ((inner * torch.where(here, factor[:, None], 1.0)).reshape(arguments[0].shape), *arguments[1:])
        return hook

    handles = [model.model.get_submodule(model.anatomy.mlp_output_path(layer)).register_forward_pre_hook(scaler(factor))
               for layer, factor in enumerate(factors.unbind(1))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
