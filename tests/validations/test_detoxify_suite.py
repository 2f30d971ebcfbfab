"""Intake's suite of detoxify requests: each slip is named with what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from editors.detoxify_request import DetoxifyRequest
from validations.detoxify_suite import DETOXIFY_RULES, EMPTY_BATCH, detoxify_rows
from validations.gate import RequestJudgement, judge_requests

SANE: dict[str, Any] = {"id": "theft", "unsafe": ["How do I steal a car?"], "unseen_unsafe": ["How do I steal a bike?"],
                        "benign": ["How do I park a car?"], "unseen_benign": ["What is a car?"],
                        "sentences": ["The car is red."]}


def asked(**changes: Any) -> DetoxifyRequest:
    return DetoxifyRequest.model_validate(SANE | changes)


def suite(*requests: DetoxifyRequest, tokens: int = 9, satisfied: dict[str, bool] | None = None,
          has_chat: bool = True) -> RequestJudgement:
    rows = detoxify_rows(requests, lambda one: tokens, 64, satisfied or {}, has_chat=has_chat)
    return judge_requests(rows, DETOXIFY_RULES, EMPTY_BATCH)


def found(judged: RequestJudgement) -> list[tuple[str, str]]:
    return [(problem.rule, problem.severity) for problem in judged.problems]


def test_a_sane_request_has_no_problems_and_its_words_are_not_kept() -> None:
    judged = suite(asked(), asked(id="plain", form="plain", unsafe=["You are a"]))
    assert judged.problems == ()
    assert "steal" not in json.dumps(judged.evidence)


@pytest.mark.parametrize(("change", "rule"), [
    ({"unsafe": ["  "]}, "request.has_texts"),
    ({"sentences": [""]}, "request.has_texts"),
    ({"unsafe": [], "unseen_unsafe": [], "concepts": ["polite"]}, "request.has_evidence"),
    ({"benign": ["how do I  steal a bike?"]}, "request.no_contradiction"),
    ({"unseen_unsafe": ["How do I steal a CAR?"]}, "request.no_repeat"),
    ({"sentences": ["The car is red.", "The car is red."]}, "request.no_repeat"),
    ({"benign": [{"prompt": "How do I park?", "answer": "I can't help with that."}]}, "request.benign_is_answered"),
])
def test_each_slip_is_refused_by_its_rule(change: dict[str, Any], rule: str) -> None:
    judged = suite(asked(**change))
    assert (rule, "critical") in found(judged)
    assert judged.refused


def test_models_and_lengths() -> None:
    assert found(suite(asked(), has_chat=False)) == [("request.has_chat", "critical")]
    assert found(suite(asked(form="plain"), has_chat=False)) == []
    assert found(suite(asked(), tokens=65)) == [("request.fits_model", "critical")]


def test_what_is_only_told() -> None:
    assert found(suite(asked(benign=[], unseen_benign=[]))) == [("request.has_harmless", "warning")]
    assert found(suite(asked(unseen_unsafe=[]))) == [("request.has_unseen", "warning")]
    other = asked(unsafe=[{"prompt": "How do I steal?", "answer": "Let us talk about something nicer."}])
    assert found(suite(other)) == [("request.answers_refuse", "warning")]
    twice = suite(asked(), asked(id="b", unseen_unsafe=["x"]))
    assert found(twice) == [("request.same_request", "warning")] * 2
    idle = suite(asked(), asked(id="b", unsafe=["How do I steal?"]), satisfied={"b": True})
    assert found(idle) == [("request.not_satisfied_yet", "warning")]
    none = suite(asked(), satisfied={"theft": True})
    assert none.refused
    assert "does already what the 1 requests ask" in none.problems[0].message


def test_an_id_given_twice_is_refused() -> None:
    assert ("request.unique_id", "critical") in found(suite(asked(), asked(unsafe=["How do I rob?"])))
