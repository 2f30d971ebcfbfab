"""The FFN's inner activations under a factor each: what scaling a neuron does to a text, and the gradient of that.

A neuron's factor on its value column (column k of the FFN output matrix) and the same factor on its activation before
that matrix are one and the same. Texts of a batch have factors of their own, so one backward gives the gradient of each
text apart: a Jacobian of texts by neurons at the price of one gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from editors.loading import LoadedModel
from editors.token_tree import Forest, TokenTree, edge_logarithms, forest_of, grouped_trees

GRADIENT_TOKENS = 256
"""Tokens of one pass that keeps its activations, padding included."""


@dataclass(frozen=True)
class Weighed:
    """A text and the function of it that is followed: sum over paths of weight times log P of the path's scored tokens."""

    tree: TokenTree = field(repr=False)
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Slopes:
    """Values (T,) of some texts, and their gradients (T, L, F) with respect to the factors; both float32."""

    values: Tensor
    gradients: Tensor


def slopes(model: LoadedModel, texts: Sequence[Weighed], factors: Tensor,
           token_budget: int = GRADIENT_TOKENS) -> Slopes:
    """Every text's value and gradient where its neurons have the factors.

    Args:
        model: The model; unchanged.
        texts: T texts.
        factors: (L, F), the same for all texts.
        token_budget: The most tokens of one pass.
    """
    values = torch.zeros(len(texts), device=model.device)
    gradients = torch.zeros(len(texts), *factors.shape, device=model.device)
    for group in grouped_trees([text.tree for text in texts], token_budget):
        forest = forest_of(model, [texts[number].tree for number in group])
        own = factors.to(model.device).float().repeat(len(group), 1, 1).requires_grad_()
        with torch.enable_grad(), scaled_inner(model, own):
            found = _values(model, forest, [texts[number] for number in group])
            gradients[group] = torch.autograd.grad(found.sum(), own)[0]
        values[group] = found.detach()
    return Slopes(values, gradients)


@contextmanager
def scaled_inner(model: LoadedModel, factors: Tensor) -> Iterator[None]:
    """Inside the block, the inner activations are multiplied by `factors` (B, L, F)."""
    def scaler(factor: Tensor) -> Any:
        def hook(_: torch.nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            # some families (OPT) hand their feed-forward module flattened tokens instead of sequences
            inner = arguments[0].reshape(len(factor), -1, factor.shape[-1])
            return ((inner * factor[:, None].to(inner.dtype)).reshape(arguments[0].shape), *arguments[1:])
        return hook

    handles = [model.model.get_submodule(model.anatomy.mlp_output_path(layer)).register_forward_pre_hook(scaler(factor))
               for layer, factor in enumerate(factors.unbind(1))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _values(model: LoadedModel, forest: Forest, texts: Sequence[Weighed]) -> Tensor:
    """(B,) each text's weighted sum."""
    edges, _ = edge_logarithms(model, forest)
    weights = torch.tensor([weight for text in texts for weight in text.weights], device=edges.device)
    owners = torch.tensor([number for number, text in enumerate(texts) for _ in text.weights], device=edges.device)
    return torch.zeros(len(texts), device=edges.device).index_add(
        0, owners[forest.edge_path], weights[forest.edge_path] * edges)
