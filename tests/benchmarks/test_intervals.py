"""Bootstrap intervals, held against the exact law of a resampled share."""

from __future__ import annotations

from math import comb

import pytest

from benchmarks.intervals import interval, paired_interval


def binomial_quantile(share: float, count: int, level: float) -> float:
    total, successes = 0.0, -1
    while total < level:
        successes += 1
        total += comb(count, successes) * share ** successes * (1 - share) ** (count - successes)
    return successes / count


@pytest.mark.parametrize(("ones", "count"), [(10, 50), (45, 50), (670, 1000)])
def test_the_interval_of_a_share_is_that_of_the_binomial_law(ones: int, count: int) -> None:
    low, high = interval([1.0] * ones + [0.0] * (count - ones))
    # a step of the law, and what 2000 resamples leave open
    slack = 1 / count + 0.005
    assert low == pytest.approx(binomial_quantile(ones / count, count, 0.025), abs=slack)
    assert high == pytest.approx(binomial_quantile(ones / count, count, 0.975), abs=slack)


def test_what_never_varies_has_an_interval_of_no_width() -> None:
    assert interval([0.5] * 20) == (0.5, 0.5)
    assert interval([1.0]) == (1.0, 1.0)


def test_a_paired_interval_is_of_the_change_and_not_of_the_values() -> None:
    before = [0.0, 1.0] * 30
    assert paired_interval(before, before) == (0.0, 0.0)
    assert paired_interval([value + 0.25 for value in before], before) == (0.25, 0.25)
    with pytest.raises(ValueError, match=r"longer|shorter"):
        paired_interval([1.0], before)
