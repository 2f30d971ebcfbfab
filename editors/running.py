"""Mean and variance of a feature over all edits of a line, batch by batch, kept with each patch.

The statistics of two batches one after the other are those of one batch of both (Chan et al. 1983; Welford 1962 for a batch
of one), so a line may be cut into releases in any way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editors.patch import Patch

RUNNING = "running."


@dataclass(frozen=True)
class Running:
    """Of `count` vectors: their mean (D,) and the sum of squared distances from it (D,), float64."""

    count: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def empty(cls, size: int) -> Running:
        """Of no vectors."""
        return cls(0, torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64))

    def joined(self, vectors: Tensor) -> Running:
        """With further vectors (D, N)."""
        vectors = vectors.double().cpu()
        new, count = vectors.shape[1], self.count + vectors.shape[1]
        mean = vectors.mean(dim=1)
        gap = mean - self.mean
        squares = self.squares + (vectors - mean[:, None]).square().sum(dim=1) + gap.square() * self.count * new / count
        return Running(count, self.mean + gap * new / count, squares)

    def relative_deviation(self, prior: int) -> Tensor:
        """(D,) standard deviation in units of its root mean square, drawn towards 1 as if `prior` vectors had shown that.

        All 1 while nothing varies: for a first vector, and for a module that the answer does not depend on.
        """
        common = self.squares.mean()
        if float(common) <= 0:
            return torch.ones_like(self.squares)
        return ((self.squares / common * self.count + prior) / (self.count + prior)).sqrt()


def remembered_statistics(statistics: Mapping[str, Running]) -> dict[str, Tensor]:
    """A patch's memory of them. statistics: parameter name -> what is known after this patch."""
    return {f"{RUNNING}{parameter}": torch.stack([torch.full_like(found.mean, found.count), found.mean, found.squares])
            for parameter, found in statistics.items()}


def earlier_statistics(patches: Sequence[Patch], parameter: str, size: int) -> Running:
    """What the last patch that knows of `parameter` left; empty where none does."""
    name = f"{RUNNING}{parameter}"
    for patch in reversed(patches):
        if name in patch.memory:
            count, mean, squares = patch.memory[name].double()
            return Running(int(count[0]), mean, squares)
    return Running.empty(size)
