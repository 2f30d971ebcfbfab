"""The step that lowers one function of many matrices most for what it costs, and leaves others where they are, to first order.

Minimise sum tr(U C U') / 2 + tr(U G') over all matrices with tr(U H_j') = 0 for every j: U = -X C^-1, X = G - sum_j a_j H_j.
The measure C is a map's own; products of gradients are taken in it, so that matrices of different kinds add up.

Source: ours; a natural gradient (Amari 1998, Neural Computation 10(2)) under linear constraints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isnan

import torch
from torch import Tensor

from editors.errors import Diverged
from editors.linear_maps import LinearMap

Step = tuple[Tensor, Tensor, Tensor]
"""Of a matrix: left (D, r), the whitened step's right side (r, F), and the step's (r, F)."""
MEASURES, NEAR_ENOUGH = 8, 0.8
"""Most lengths that are tried, and the share of the price at which the search is content."""


def whitened(gradient: Tensor, factor: Tensor) -> Tensor:
    """G L^-T (D, F) float64, whose products are those of the metric C^-1 = L^-T L^-1. gradient: (D, F); factor: L (F, F)."""
    return torch.linalg.solve_triangular(factor, gradient.double().T, upper=False).T


def shares_of(products: Tensor) -> Tensor:
    """The a (J,) that free the first of J + 1 gradients from the others. products: (J + 1, J + 1) of whitened gradients.

    Where a group's gradient is nought, or follows from the others', the least a is taken.
    """
    scale = products.diagonal()[1:].clamp(min=torch.finfo(products.dtype).tiny).sqrt()
    system = products[1:, 1:] / scale / scale[:, None]
    return (torch.linalg.pinv(system, hermitian=True, rtol=1e-9) @ (products[1:, 0] / scale)) / scale


def steps_of(gradients: Sequence[Mapping[LinearMap, Tensor]], factor_of: Callable[[LinearMap], Tensor],
             rank: int) -> dict[LinearMap, Step]:
    """The step of each matrix; left @ right is X C^-1, cut to rank.

    Args:
        gradients: That of the contrast, then those that are held; each map -> (D, F).
        factor_of: The lower Cholesky factor (F, F) of a map's C.
        rank: How many directions of each matrix are kept.
    """
    maps = list(gradients[0])
    products = torch.zeros(len(gradients), len(gradients), dtype=torch.float64, device=gradients[0][maps[0]].device)
    for one in maps:
        factor = factor_of(one)
        rows = torch.stack([whitened(gradient[one], factor).flatten() for gradient in gradients])
        products = products + rows @ rows.T
    shares, found = shares_of(products), {}
    for one in maps:
        factor = factor_of(one)
        # what is linear may be combined before it is whitened
        free = gradients[0][one].double() - sum(share * gradient[one].double()
                                                for share, gradient in zip(shares, gradients[1:], strict=True))
        left, right = strongest(whitened(free, factor), rank)
        found[one] = left, right, torch.linalg.solve_triangular(factor.T, right.T, upper=True).T
    return found


def strongest(step: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best approximation of rank `rank` as factors (D, r), (r, F). step: (D, F) float64, whitened."""
    _, vectors = torch.linalg.eigh(step @ step.T)
    left = vectors[:, -min(rank, len(vectors)):].flip(1)
    return left, left.T @ step


def longest(loss: Callable[[float], float], first: float, price: float) -> float:
    """A length that costs at most the price, and at least `NEAR_ENOUGH` of it where eight tries find one.

    Raises:
        Diverged: every length that was tried costs more, or is not finite.
    """
    low, high, length = 0.0, float("inf"), first
    for _ in range(MEASURES):
        found = loss(length)
        if found <= price:
            low = max(low, length)
            if found >= NEAR_ENOUGH * price:
                break
        else:
            high = min(high, length)
        # losses grow between linearly and with the square; not finite is too long
        factor = min(4.0, max(0.25, (0.9 * price / max(found, 1e-9)) ** 0.7)) if not isnan(found) else 0.25
        length *= factor
        if not low < length < high:
            length = (low + high) / 2
    if not low:
        raise Diverged("no length of the step stays within soften's price", "raise the price, or give more harmless prompts")
    return low
