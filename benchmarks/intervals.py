"""Percentile bootstrap intervals over records."""

from __future__ import annotations

import random
from collections.abc import Sequence

RESAMPLES, SEED = 2000, 0


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean."""
    generator = random.Random(SEED)  # noqa: S311  resampling, not cryptography
    means = sorted(sum(generator.choices(values, k=len(values))) / len(values) for _ in range(RESAMPLES))
    edge = int(RESAMPLES * (1 - level) / 2)
    return means[edge], means[-edge - 1]


def paired_interval(after: Sequence[float], before: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean change of the same records, narrower than the two intervals would make believe.

    Raises:
        ValueError: the two are not of one length.
    """
    return interval([now - was for now, was in zip(after, before, strict=True)], level)
