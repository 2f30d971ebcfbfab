"""How the likelihood of whole texts depends on linear maps: one forward and one backward of many texts at once.

The gradient of a sum of log-probabilities with respect to a matrix is the sum over tokens of g k', k what the map reads
and g the gradient with respect to its output there, so every position of a text counts and not one that is chosen.
Blocks below the lowest matrix run without a graph, and logits are made where a token is scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from editors.blocks import pad, prefill
from editors.gradients import tapped
from editors.linear_maps import LinearMap
from editors.loading import LoadedModel
from editors.prompts import Encoded
from editors.suffix import grouped


def likelihood_gradients(model: LoadedModel, texts: Sequence[Encoded], maps: Sequence[LinearMap],
                         token_budget: int) -> dict[LinearMap, Tensor]:
    """Map -> gradient (D, F) float32 of the mean log-probability (nats) of a scored token; the model is unchanged.

    Args:
        model: The model.
        texts: What stands before `prompt_length` is read, the rest is scored; the first token is never.
        maps: Whose matrices.
        token_budget: The most tokens of one pass, padding included.
    """
    count, first = sum(len(_scored(text)) for text in texts), min(one.layer for one in maps)
    matrices = [model.model.get_parameter(one.parameter) for one in maps]
    totals = [torch.zeros_like(matrix, dtype=torch.float32) for matrix in matrices]
    for group in _groups(texts, token_budget):
        with torch.enable_grad(), _differentiable(matrices):
            logarithms = _logarithms(model, [texts[number] for number in group], first)
            found = torch.autograd.grad(logarithms.sum() / count, matrices)
        for total, gradient in zip(totals, found, strict=True):
            total.add_(gradient.float())
    turned = model.anatomy.layout == "in_out"
    return {one: total.T.contiguous() if turned else total for one, total in zip(maps, totals, strict=True)}


def output_sensitivities(model: LoadedModel, texts: Sequence[Encoded], maps: Sequence[LinearMap],
                         token_budget: int) -> dict[LinearMap, float]:
    """Map -> mean square, over scored tokens and the map's outputs, of the gradient of a text's log-probability there.

    Of text that the model wrote this is the trace of the Fisher information of the map's output over its size: tr(U C U')
    times half of it is by how many nats a token an update U makes such text less likely, to second order, as if keys and
    gradients were independent and all outputs alike (Martens and Grosse 2015, arXiv:1503.05671, section 3).
    """
    paths, totals = {one: one.path for one in maps}, dict.fromkeys(maps, 0.0)
    count, first = sum(len(_scored(text)) for text in texts), min(one.layer for one in maps)
    matrices = [model.model.get_parameter(one.parameter) for one in maps]
    for group in _groups(texts, token_budget):
        with torch.enable_grad(), _differentiable(matrices), tapped(model, paths) as (_, outputs):
            logarithms = _logarithms(model, [texts[number] for number in group], first)
            found = torch.autograd.grad(logarithms.sum(), [outputs[one] for one in maps])
        for one, gradient in zip(maps, found, strict=True):
            totals[one] += float(gradient.float().square().sum()) / gradient.shape[-1]
    return {one: total / count for one, total in totals.items()}


@torch.no_grad()
def mean_likelihood(model: LoadedModel, texts: Sequence[Encoded], token_budget: int) -> float:
    """Mean log-probability of a scored token, in nats."""
    total, count = 0.0, sum(len(_scored(text)) for text in texts)
    for group in _groups(texts, token_budget):
        total += float(_logarithms(model, [texts[number] for number in group], 0).double().sum())
    return total / count


def _logarithms(model: LoadedModel, texts: Sequence[Encoded], first: int) -> Tensor:
    """(Q,) of all scored tokens; the graph, where grad is on, begins at block `first`."""
    walk = prefill(model, pad([text.ids for text in texts], model.device))
    with torch.no_grad():
        hidden = walk.run(walk.entry, 0, first - 1)
    hidden = walk.run(hidden, first, model.anatomy.layer_count - 1)
    reads = [(row, place - 1, text.ids[place]) for row, text in enumerate(texts) for place in _scored(text)]
    rows, columns, labels = torch.tensor(reads, device=model.device).T
    norm, head = model.model.get_submodule(model.anatomy.final_norm), model.model.get_output_embeddings()
    return head(norm(hidden[rows, columns])).float().log_softmax(-1).gather(1, labels[:, None])[:, 0]


def _scored(text: Encoded) -> range:
    return range(max(text.prompt_length, 1), len(text.ids))


def _groups(texts: Sequence[Encoded], token_budget: int) -> Iterator[list[int]]:
    chosen = [number for number, text in enumerate(texts) if len(_scored(text))]
    lengths = [len(text.ids) for text in texts]
    yield from grouped(sorted(chosen, key=lengths.__getitem__), lengths, token_budget)


@contextmanager
def _differentiable(matrices: Sequence[Tensor]) -> Iterator[None]:
    before = [matrix.requires_grad for matrix in matrices]
    try:
        for matrix in matrices:
            matrix.requires_grad_(True)
        yield
    finally:
        for matrix, was in zip(matrices, before, strict=True):
            matrix.requires_grad_(was)
