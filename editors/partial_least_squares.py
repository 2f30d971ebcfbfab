"""Directions of one set of vectors that covary most with another: partial least squares, without scaling.

Source: Wold et al. 1984, "The collinearity problem in linear regression", SIAM J. Sci. Stat. Comput. 5(3); de Jong 1993 for
the form with one singular value decomposition a component.
"""

from __future__ import annotations

import torch
from torch import Tensor

SPENT = 1e-9
"""Deflated vectors whose covariance is below this share of the first one's hold nothing but rounding."""


def covarying_directions(vectors: Tensor, companions: Tensor, count: int) -> Tensor:
    """An orthonormal basis (D, c) float64 of the first c <= `count` weight vectors; fewer where the data hold no more.

    Args:
        vectors: (N, D), whose directions are sought.
        companions: (N, E), what they are to covary with.
        count: At most so many.
    """
    left = vectors.double() - vectors.double().mean(dim=0)
    right = companions.double() - companions.double().mean(dim=0)
    found: list[Tensor] = []
    first = 0.0
    for _ in range(min(count, len(left) - 1, left.shape[1])):
        directions, sizes, _ = torch.linalg.svd(left.T @ right, full_matrices=False)
        first = first or float(sizes[0])
        if float(sizes[0]) <= SPENT * first:
            break
        weight = directions[:, 0]
        score = left @ weight
        energy = score @ score
        left = left - torch.outer(score, left.T @ score / energy)
        right = right - torch.outer(score, right.T @ score / energy)
        found.append(weight)
    if not found:
        return left.new_zeros(left.shape[1], 0)
    return torch.linalg.qr(torch.stack(found, dim=1))[0]


def without(directions: Tensor, kept: Tensor) -> Tensor:
    """An orthonormal basis of what `directions` (D, c) hold besides the span of an orthonormal `kept` (D, k)."""
    rest = directions - kept @ (kept.T @ directions)
    basis, sizes, _ = torch.linalg.svd(rest, full_matrices=False)
    return basis[:, sizes > SPENT ** 0.5]
