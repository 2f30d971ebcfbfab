"""Factors for chosen neurons that hide secrets and move as little else as can be, in closed form step by step.

Let d be the changes of Z factors from 1. A secret's excess e(d), its log P over the mean of never-seen values, is to be at
most -margin; what the model says elsewhere is to stay. With the Jacobian J of the excesses, which one backward of all
texts gives (`inner_scale`), each step solves

    least  d' H d / 2   so that   e + J (d_new - d) <= -margin,

where H is the Fisher information of the factors: the mean outer product of gradients of log P of ordinary text, which is
twice the KL divergence that a small change causes there. The dual has one multiplier for each text and is solved by
coordinate ascent; a text that is hidden already has the multiplier 0. The excess bends, so a few steps are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editors.errors import IntegrityError

SWEEPS = 2000
"""Passes over the multipliers; a few hundred settle them."""
SETTLED = 1e-10
REACHED = 0.25
"""Nats of the margin that may be missing where a text counts as hidden."""
RADIUS = 0.5
"""Largest change of a factor in one step: the excess bends. A step that hides less is taken back, the next is shorter."""
SHORTEST = 1e-3
"""Below this the search has settled."""
INERTIA = 0.8
"""A step looks for the least change from this share of the last one: from nothing it would undo what bent the excess."""


@dataclass(frozen=True)
class Curvature:
    """H = rows' rows + diag(floor). rows: (N, Z); floor: (Z,), above 0; float64."""

    rows: Tensor
    floor: Tensor

    @classmethod
    def of(cls, parts: Sequence[tuple[Tensor, float]], ridge: float) -> Curvature:
        """The sum over parts of weight times the mean outer product of a part's gradients (N, Z).

        `ridge`: how much of the diagonal, and of its mean, is added to it: few texts do not show everything.
        """
        rows = torch.cat([gradients.double() * (weight / max(len(gradients), 1)) ** 0.5 for gradients, weight in parts])
        diagonal = rows.square().sum(0)
        return cls(rows, ridge * (diagonal + diagonal.mean()).clamp(min=1e-30))

    def solve(self, right: Tensor) -> Tensor:
        """H^-1 right, for right (Z, R), by Woodbury's identity."""
        scaled = right / self.floor[:, None]
        inner = torch.eye(len(self.rows), dtype=right.dtype, device=right.device) + (self.rows / self.floor) @ self.rows.T
        factor = torch.linalg.cholesky(inner)
        return scaled - (self.rows / self.floor).T @ torch.cholesky_solve(self.rows @ scaled, factor)

    def cost(self, change: Tensor) -> float:
        """KL divergence in nats a text that a change (Z,) causes, to second order: d' H d / 2."""
        return float((self.rows @ change).square().sum() + (self.floor * change.square()).sum()) / 2


def least_change(jacobian: Tensor, needed: Tensor, curvature: Curvature) -> Tensor:
    """The change d (Z,) of least d' H d / 2 with jacobian d + needed <= 0.

    Args:
        jacobian: (R, Z) float64.
        needed: (R,) what each text must lose, in nats; negative where it has room.
        curvature: H.
    """
    spread = curvature.solve(jacobian.T)
    gram = jacobian @ spread
    # a text that no neuron moves cannot be helped: its multiplier would grow without end
    diagonal = gram.diagonal() + 1e-9 * gram.diagonal().mean().clamp(min=1e-30)
    multipliers = torch.zeros_like(needed)
    for _ in range(SWEEPS):
        before = multipliers.clone()
        for row in range(len(needed)):
            slope = needed[row] - gram[row] @ multipliers
            multipliers[row] = (multipliers[row] + slope / diagonal[row]).clamp(min=0)
        if float((multipliers - before).abs().max()) <= SETTLED * float(multipliers.abs().max().clamp(min=1e-30)):
            break
    return -(spread @ multipliers)


@dataclass(frozen=True)
class Fit:
    """A change (Z,) of the factors, float64, and how many steps led to it."""

    change: Tensor
    steps: int


def fitted_change(read: Callable[[Tensor], tuple[Tensor, Tensor]], curvature: Curvature, margins: Tensor, most: float,
                  steps: int, start: Tensor | None = None) -> Fit:
    """The change of least drift that hides every text, or the one of `steps` steps that misses least.

    The first change that hides is seldom the cheapest, so steps are taken after it too.

    Args:
        read: From a change (Z,) to the texts' excesses (R,) and their Jacobian (R, Z).
        curvature: H at no change.
        margins: (R,) nats below 0 that each excess is to reach.
        most: A factor stays within 1 - most and 1 + most.
        steps: Most steps.
        start: Where to begin; None: no change.

    Raises:
        IntegrityError: an excess is not finite.
    """
    change = torch.zeros_like(curvature.floor) if start is None else start
    best, rank, radius = (change, *_read(read, change)), (True, float("inf")), RADIUS
    for step in range(steps + 1):
        here = best if step == 0 else (change, *_read(read, change))
        missed, cost = (here[1] + margins).clamp(min=0), curvature.cost(change)
        is_short = float(missed.max()) > REACHED
        found_rank = (is_short, float(missed.sum()) if is_short else cost)
        is_better = found_rank < rank
        if is_better:
            best, rank = here, found_rank
        radius = min(2 * radius, RADIUS) if is_better else radius / 4
        if step == steps or radius < SHORTEST or (not is_short and cost == 0):
            break
        found, excess, jacobian = best
        centre = INERTIA * found
        needed = excess + margins + jacobian @ (centre - found)
        moved = (centre + least_change(jacobian, needed, curvature)).clamp(-most, most) - found
        change = found + moved * min(1.0, radius / max(float(moved.abs().max()), 1e-30))
    return Fit(best[0], step)


def _read(read: Callable[[Tensor], tuple[Tensor, Tensor]], change: Tensor) -> tuple[Tensor, Tensor]:
    excess, jacobian = (found.double() for found in read(change))
    if not bool(torch.isfinite(excess).all() and torch.isfinite(jacobian).all()):
        raise IntegrityError("the search for factors met numbers that are not finite", "lower most_change")
    return excess, jacobian
