"""Where an editor breaks."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.targets import TARGETS, Target, breaks_at, verdicts

GOOD = {"success": 0.95, "teacher_forced": 0.8, "neighbourhood_drop": 0.668 - 0.588, "perplexity_ratio": 1.10}


def points(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**GOOD, "edits": 10 ** place, **change} for place, change in enumerate(changes)]


def test_the_limits_are_those_that_were_asked_for() -> None:
    assert {(target.figure, target.limit, target.is_floor) for target in TARGETS} == {
        ("success", 0.95, True), ("teacher_forced", 0.8, True), ("neighbourhood_drop", 0.08, False),
        ("perplexity_ratio", 1.1, False)}


def test_a_figure_on_its_limit_is_kept_and_one_that_is_no_number_is_not() -> None:
    assert all(target.is_met(GOOD) for target in TARGETS)
    ratio = Target("perplexity_ratio", 1.1, is_floor=False)
    assert not ratio.is_met({"perplexity_ratio": None})
    assert not ratio.is_met({"perplexity_ratio": float("nan")})
    assert not ratio.is_met({})


@pytest.mark.parametrize(("target", "value"), zip(TARGETS, (0.949, 0.799, 0.081, 1.101), strict=True))
def test_the_first_point_that_misses_is_named_even_if_later_ones_recover(target: Target, value: float) -> None:
    run = points({}, {target.figure: value}, {})
    assert breaks_at(target, run, None) == 10
    assert verdicts(run, 100, None)[target.figure] is True
    assert verdicts(run[:2], 10, None)[target.figure] is False


def test_a_run_that_did_not_reach_its_end_reaches_nothing() -> None:
    assert set(verdicts(points({}, {}), 1000, None).values()) == {False}
    assert set(verdicts(points({}, {}, {}), 100, 40).values()) == {False}
    assert breaks_at(TARGETS[0], points({}), 40) == 40
    assert breaks_at(TARGETS[0], points({}), None) is None
