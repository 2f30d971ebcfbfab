"""Integrated gradients to a tolerance: the path is cut where it is jagged, until the attributions sum up.

From few activations to all, log P of a real model's answer is anything but smooth: on SmolLM2 it falls and rises by nats
within a hundredth of the path, and a rule over the whole of it still missed its sum by a tenth at 40 points. So the path is
cut into panels with Gauss and Legendre's points in each. What a panel's attributions sum up to is known, the difference of
the function at its ends, and the panel that misses it most is halved until the misses of all together, none set off against
another, are within the tolerance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from editors.contract import Progress, silent
from editors.errors import IntegrityError
from editors.inner_scale import Slopes

NODES = 5
"""Points of a panel."""


@dataclass(frozen=True)
class Completeness:
    """Of each text (T,): f(1) - f(baseline) in nats, what its attributions sum up to, and at how many points."""

    whole: Tensor
    summed: Tensor
    points: Tensor

    @property
    def gaps(self) -> Tensor:
        """(T,) by how much the sum misses the whole, as a share of it."""
        return (self.summed - self.whole).abs() / self.whole.abs().clamp(min=1e-12)


@dataclass(frozen=True)
class _Panel:
    """A piece of the path: its ends, the texts' values there (T,), and the integrals (T, L, F)."""

    low: float
    high: float
    values: tuple[Tensor, Tensor]
    integrals: Tensor

    @property
    def missed(self) -> Tensor:
        """(T,) nats."""
        return (self.integrals.double().sum((1, 2)) - (self.values[1] - self.values[0])).abs()


def integrate(slopes_at: Callable[[float], Slopes], baseline: float, points: int, tolerance: float, most_points: int,
              progress: Progress = silent) -> tuple[Tensor, Completeness]:
    """Attributions (T, L, F) that sum up to f(1) - f(baseline) within the tolerance, and how well they do.

    Args:
        slopes_at: Values (T,) and gradients (T, L, F) where all neurons have a factor.
        baseline: The factor at which the path begins.
        points: So many at least.
        tolerance: Most that the panels' misses may come to, as a share of the whole, of every text.
        most_points: Where halving ends.
        progress: Told of the points.

    Raises:
        IntegrityError: they do not sum up, at the most points, or a number is not finite.
    """
    edges = np.linspace(baseline, 1.0, -(-points // NODES) + 1).tolist()
    values = [slopes_at(edge).values.double() for edge in edges]
    panels = [_panel(slopes_at, edges[place], edges[place + 1], values[place:place + 2]) for place in range(len(edges) - 1)]
    whole, spent = values[-1] - values[0], NODES * len(panels)
    while True:
        progress("attributing neurons", spent, 0)
        shares = torch.stack([panel.missed for panel in panels]) / whole.abs().clamp(min=1e-12)
        worst = float(shares.sum(0).max())
        if worst <= tolerance:
            break
        # written so that a number that is not finite ends it as well
        if not worst < float("inf") or spent + 2 * NODES > most_points:
            raise IntegrityError(f"at {spent} points the attributions miss {worst:.1%} of what they should sum up to, over the "
                                 f"tolerance of {tolerance:.1%}", "raise most_points, or detector.baseline")
        place = int(shares[:, int(shares.sum(0).argmax())].argmax())
        panels[place:place + 1] = _halved(slopes_at, panels[place])
        spent += 2 * NODES
    scores = torch.stack([panel.integrals for panel in panels]).sum(0)
    return scores, Completeness(whole, scores.double().sum((1, 2)), torch.full_like(whole, spent))


def _panel(slopes_at: Callable[[float], Slopes], low: float, high: float, values: list[Tensor]) -> _Panel:
    integrals: Tensor | float = 0.0
    for place, weight in zip(*np.polynomial.legendre.leggauss(NODES), strict=True):
        found = slopes_at(low + (high - low) * (float(place) + 1) / 2)
        integrals = integrals + found.gradients * float(weight) / 2 * (high - low)
    return _Panel(low, high, (values[0], values[1]), torch.as_tensor(integrals))


def _halved(slopes_at: Callable[[float], Slopes], panel: _Panel) -> list[_Panel]:
    middle = (panel.low + panel.high) / 2
    value = slopes_at(middle).values.double()
    return [_panel(slopes_at, panel.low, middle, [panel.values[0], value]),
            _panel(slopes_at, middle, panel.high, [value, panel.values[1]])]
