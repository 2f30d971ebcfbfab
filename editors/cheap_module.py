"""One FFN module on which the cheapest update is built: natural's bookkeeping, in coordinates where its metric is plain.

With S = L_S L_S' and C = L_C L_C', keys L_C^-1 k and gradients L_S^-1 g make the cost of an update its squared length, and
one fact's part of it an outer product. Facts that are not read anew keep what they had.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from editors.gradients import Reading
from editors.loading import LoadedModel
from editors.patch import Dense, TensorEdit
from editors.writing import as_edit


def whitened(factor: Tensor, vectors: Tensor) -> Tensor:
    """L^-1 v for every column, float64. factor: (F, F) the lower Cholesky factor L; vectors: (F, N)."""
    return torch.linalg.solve_triangular(factor, vectors.double(), upper=False)


@dataclass
class CheapModule:
    """One edited FFN module and its update so far, in the coordinates in which S and C are the identity.

    keys (F, M), gradients (D, M): of all facts, each as it was last read. change: (D, F). `parts`: its factors, as long as
    they hold fewer numbers.
    """

    layer: int
    parameter: str
    key_factor: Tensor
    output_factor: Tensor
    keys: Tensor
    gradients: Tensor
    change: Tensor
    parts: list[tuple[Tensor, Tensor]] | None = field(default_factory=list)

    def take(self, reading: Reading, which: Tensor) -> None:
        """The reading's facts are these (N,) of all."""
        self.keys[:, which] = whitened(self.key_factor, reading.keys[self.layer])
        self.gradients[:, which] = whitened(self.output_factor, reading.gradients[self.layer])

    def kernel(self, which: Tensor) -> Tensor:
        """This module's part of Q for these facts (N,) against all, (N, M)."""
        return (self.keys[:, which].T @ self.keys) * (self.gradients[:, which].T @ self.gradients)

    def lengths(self, which: Tensor) -> Tensor:
        """|S^-1 g_i| k_i' C^-1 k_i for these facts, (N,)."""
        directions = torch.linalg.solve_triangular(self.output_factor.T, self.gradients[:, which], upper=True)
        return directions.norm(dim=0) * self.keys[:, which].square().sum(dim=0)

    def written(self, count: int) -> Tensor:
        """(F, count) the first facts' keys as they were last read."""
        return self.key_factor @ self.keys[:, :count]

    def add(self, weights: Tensor) -> None:
        """Go on by sum_i a_i (S^-1 g_i) (C^-1 k_i)'."""
        part = (self.gradients * weights, self.keys.T.clone())
        self.change = self.change + part[0] @ part[1]
        parts = None if self.parts is None else [*self.parts, part]
        rank = sum(len(right) for _, right in parts or ())
        self.parts = parts if rank * sum(self.change.shape) <= self.change.numel() else None

    def edit(self, model: LoadedModel) -> TensorEdit:
        """The update in the parameter's own layout, as factors where they are smaller."""
        if self.parts:
            left, right = (torch.cat(side, dim=axis) for side, axis in zip(zip(*self.parts, strict=True), (1, 0), strict=True))
            return as_edit(model, self.layer, torch.linalg.solve_triangular(self.output_factor.T, left, upper=True),
                           torch.linalg.solve_triangular(self.key_factor.T, right.T, upper=True).T)
        left = torch.linalg.solve_triangular(self.output_factor.T, self.change, upper=True)
        change = torch.linalg.solve_triangular(self.key_factor.T, left.T, upper=True).T
        change = change if model.anatomy.layout == "out_in" else change.T
        return Dense(self.parameter, change.float().contiguous())
