"""Intervals and aggregates by numbers worked out elsewhere."""

from __future__ import annotations

import pytest

from validations.contract import Measurement
from validations.policy import PolicyRule
from validations.tables import mean_interval, rule_table, share_interval


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


def test_the_interval_of_a_share_needs_no_rows() -> None:
    assert share_interval(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-3)
    assert share_interval(1.0, 8) == pytest.approx((0.6756, 1.0), abs=1e-3)
    assert share_interval(0.0, 0) == (0.0, 1.0)


def left(limit: dict[str, object], *pairs: tuple[float, float | None]) -> float | None:
    """What (candidate, parent) rows leave to a rule with this limit."""
    rows = [Measurement(request="-", probe="a", metric="a.b", prompt=str(place), parent=parent, candidate=candidate)
            for place, (candidate, parent) in enumerate(pairs)]
    return rule_table(PolicyRule.model_validate({"name": "a.b", "meaning": "a", **limit}), rows, {}).to_spare


@pytest.mark.parametrize(("limit", "rows", "expected"), [
    ({"at_least": 0.9}, [(0.95, None)], 0.05),
    ({"at_least": 0.9}, [(0.5, None)], -0.4),
    ({"at_most_ratio": 1.05}, [(25.0, 20.0)], -0.2),
    ({"at_least_ratio": 0.5}, [(15.0, 20.0)], 0.25),
    ({"margin": 0.05}, [(0.8, 0.7)], 0.15),
    ({"rise": 0.5}, [(2.0, 1.0)], -0.5),
    ({"at_least": 1, "at_most": 4}, [(3.5, None)], 0.5),
    ({"at_most": 3, "aggregate": "count"}, [(0.7, None), (0.0, None)], 2.0),
    ({"margin": 0.0, "aggregate": "min"}, [(1.0, 0.9), (0.5, 0.7)], -0.2),
])
def test_what_is_left_to_the_limit_is_in_the_rules_own_unit(limit: dict[str, object], rows: list, expected: float) -> None:
    assert left(limit, *rows) == pytest.approx(expected, abs=1e-8)


def test_a_number_on_the_limit_has_nothing_to_spare_and_not_what_rounding_allows() -> None:
    assert left({"at_least": 1, "aggregate": "max"}, (1.0, None)) == 0
    assert left({"at_most": 0.25}, (0.25, None)) == 0


def test_nothing_is_left_where_rows_stand_alone_or_nothing_limits_or_was_measured() -> None:
    assert left({"at_least": 1, "aggregate": "every"}, (1.0, None)) is None
    assert left({"severity": "info"}, (1.0, None)) is None
    assert left({"at_least": 1}) is None
    assert left({"margin": 0.1}, (1.0, None)) is None
