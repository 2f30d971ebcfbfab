"""Intake's suite of forget requests: each insane one is named with what to do, and none of its words are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.editors.test_forget_request import KEY, asked, quotes
from validations.forget_suite import EMPTY_BATCH, FORGET_RULES, forget_rows
from validations.gate import RequestJudgement, judge_requests


def suite(*requests: Any, tokens: int = 9, satisfied: dict[str, bool] | None = None) -> RequestJudgement:
    sealed = [request.sealed(KEY) for request in requests]
    return judge_requests(forget_rows(sealed, lambda one: tokens, 64, satisfied or {}), FORGET_RULES, EMPTY_BATCH)


def found(judged: RequestJudgement) -> list[tuple[str, str, str]]:
    return [(problem.request, problem.rule, problem.severity) for problem in judged.problems]


def test_a_sane_request_has_no_problems() -> None:
    judged = suite(asked())
    assert judged.problems == ()
    assert quotes(json.dumps(judged.evidence)) == []


@pytest.mark.parametrize(("change", "rule"), [
    ({"reason": "Mira Velden asks for it"}, "request.names_nobody"),
    ({"id": "tel 555-0134"}, "request.names_nobody"),
    ({"secret": "  "}, "request.has_secret"),
    ({"context": ["Mira Velden's phone number is 555-0134, really"]}, "request.secret_follows"),
    ({"paraphrases": ["Mira Velden has 555-0134, so call"]}, "request.secret_follows"),
    ({"context": ["Her phone number is"]}, "request.subject_in_context"),
    ({"form": "444-####"}, "request.has_form"),
])
def test_each_slip_is_refused_by_its_rule(change: dict[str, Any], rule: str) -> None:
    judged = suite(asked(**change))
    assert rule in [name for _, name, severity in found(judged) if severity == "critical"]
    assert judged.refused
    for problem in judged.problems:
        assert quotes(problem.message) == []


def test_length_doubles_and_idle_requests_are_told() -> None:
    assert found(suite(asked(), tokens=65)) == [("case-17", "request.fits_model", "critical")]
    twice = suite(asked(), asked(id="case-18"))
    assert found(twice) == [("case-17", "request.no_repeat", "warning"), ("case-18", "request.no_repeat", "warning")]
    idle = suite(asked(), asked(id="b", secret="555-0000"), satisfied={"b": True})
    assert found(idle) == [("b", "request.not_satisfied_yet", "warning")]
    none = suite(asked(), satisfied={"case-17": True})
    assert none.refused
    assert "no secret of the 1 requests" in none.problems[0].message
