"""Intervals and aggregates by numbers worked out elsewhere."""

from __future__ import annotations

import pytest

from validations.tables import mean_interval


@pytest.mark.parametrize(("values", "low", "high"), [
    ([1.0] * 10, 0.7225, 1.0),
    ([1.0] * 8 + [0.0] * 2, 0.4902, 0.9433),
    ([0.0] * 20, 0.0, 0.1611),
])
def test_the_interval_of_zeros_and_ones_is_wilsons(values: list[float], low: float, high: float) -> None:
    # 10 of 10: n / (n + z^2); none of 20: z^2 / (n + z^2); 8 of 10: the value every table of Wilson intervals gives
    assert mean_interval(values) == pytest.approx((low, high), abs=1e-4)


def test_the_interval_of_other_numbers_is_the_normal_one() -> None:
    low, high = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert (low, high) == pytest.approx((2.5 - 1.96 * 0.645497, 2.5 + 1.96 * 0.645497), abs=1e-3)
