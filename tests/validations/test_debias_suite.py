"""Intake's suite of debias requests: each insane one is named with what to do, and none of its words are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from editors.debias_request import DebiasRequest
from tests.validations.bias.asked import TERMS, UNSEEN, asked
from validations.debias_suite import DEBIAS_RULES, EMPTY_BATCH, debias_rows
from validations.gate import RequestJudgement, judge_requests


def suite(*requests: DebiasRequest, limit: int = 64, satisfied: dict[str, bool] | None = None) -> RequestJudgement:
    rows = debias_rows(requests, lambda text: tuple(map(ord, text[:3])) + (0,) * len(text.split()), limit, satisfied or {})
    return judge_requests(rows, DEBIAS_RULES, EMPTY_BATCH)


def found(judged: RequestJudgement) -> list[tuple[str, str, str]]:
    return [(problem.request, problem.rule, problem.severity) for problem in judged.problems]


def test_a_sane_request_has_no_problems_and_no_word_of_it_is_kept() -> None:
    judged = suite(asked())
    assert judged.problems == ()
    text = json.dumps(judged.evidence)
    assert not any(word in text for word in ("physics", "said that", "Darrieux"))


@pytest.mark.parametrize(("change", "rule"), [
    ({"terms": [*TERMS, " "]}, "request.has_words"),
    ({"templates": ("The {} said that You",)}, "request.group_follows"),
    ({"unseen_templates": ("The {} is what 'name',",)}, "request.group_follows"),
    ({"terms": [*TERMS, "Physics"]}, "request.terms_differ"),
    ({"templates": ("The {} said that", "The  {} said that")}, "request.terms_differ"),
    ({"unseen_terms": [*UNSEEN, "physics"]}, "request.unseen_is_unseen"),
    ({"unseen_templates": ("The {} said that",)}, "request.unseen_is_unseen"),
    ({"terms": [*TERMS, "mother"]}, "request.no_contradiction"),
    ({"definitional": ["mother"]}, "request.meaning_has_group"),
    ({"definitional": [{"term": "mother", "factual": 0}]}, "request.meaning_has_group"),
    ({"groups": ("name of one", "name of all")}, "request.groups_differ"),
])
def test_each_slip_is_refused_by_its_rule(change: dict[str, Any], rule: str) -> None:
    judged = suite(asked(**change))
    assert rule in [name for _, name, severity in found(judged) if severity == "critical"]
    assert judged.refused
    for problem in judged.problems:
        assert "physics" not in problem.message


def test_length_ids_doubles_and_idle_requests_are_told() -> None:
    assert found(suite(asked(), limit=8)) == [("posts", "request.fits_model", "critical")]
    twice = found(suite(asked(), asked()))
    assert ("posts", "request.unique_id", "critical") in twice
    assert ("posts", "request.no_repeat", "warning") in twice
    idle = suite(asked(), asked(id="b", templates=("The {} is",)), satisfied={"b": True})
    assert found(idle) == [("b", "request.not_satisfied_yet", "warning")]
    none = suite(asked(), satisfied={"posts": True})
    assert none.refused
    assert "after the terms of the 1 requests" in none.problems[0].message


def test_what_weakens_the_evidence_is_a_warning() -> None:
    warned = found(suite(asked(bare=True)))
    assert warned == [("posts", f"request.{rule}", "warning") for rule in ("has_scores", "keeps_meanings", "has_unseen")]
