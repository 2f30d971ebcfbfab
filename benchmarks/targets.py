"""What a thousand edits in a row are held to, and where an editor breaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROUNDING = 1e-9
"""Shares are sums of floats: one that is the limit may come out a hair beyond it."""


@dataclass(frozen=True)
class Target:
    """A limit on one figure of a point."""

    figure: str
    limit: float
    is_floor: bool

    def is_met(self, point: Mapping[str, Any]) -> bool:
        """Whether the point keeps the limit; a figure that is missing or no number does not."""
        value = point.get(self.figure)
        if value is None or value != value:
            return False
        return bool(value >= self.limit - ROUNDING if self.is_floor else value <= self.limit + ROUNDING)


TARGETS = (
    Target("success", 0.95, is_floor=True),
    Target("teacher_forced", 0.80, is_floor=True),
    Target("neighbourhood_drop", 0.08, is_floor=False),
    Target("perplexity_ratio", 1.10, is_floor=False),
)


def breaks_at(target: Target, points: Sequence[Mapping[str, Any]], stopped_after: int | None) -> int | None:
    """Number of edits at the first point that misses the target; None where none does.

    Args:
        target: The limit.
        points: In order.
        stopped_after: Edits done when the run could not go on.
    """
    missed = [int(point["edits"]) for point in points if not target.is_met(point)]
    return missed[0] if missed else stopped_after


def verdicts(points: Sequence[Mapping[str, Any]], wanted_edits: int, stopped_after: int | None) -> dict[str, bool]:
    """For each target, whether the last point keeps it and is the point of all `wanted_edits`."""
    last = points[-1] if points and stopped_after is None and points[-1]["edits"] == wanted_edits else {}
    return {target.figure: target.is_met(last) for target in TARGETS}
