"""Intake's suite: each insane request is named with its id, its value and what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from editors.contract import Message, UpdateRequest
from editors.errors import SheetError
from tests.validations.measured import request
from validations import gate
from validations.gate import RequestJudgement, judge_requests
from validations.request_suite import REQUEST_RULES, request_rows

LIMIT = 64


def suite(*requests: UpdateRequest, satisfied: dict[str, bool] | None = None) -> RequestJudgement:
    return judge_requests(request_rows(requests, lambda one: len(one.question.split()), LIMIT, satisfied or {}))


def chat(name: str, question: str, answer: str, **fields: Any) -> UpdateRequest:
    return UpdateRequest(id=name, messages=(Message(role="user", content=question),), answer=answer, **fields)


def found(judged: RequestJudgement) -> list[tuple[str, str, str]]:
    return [(problem.request, problem.rule, problem.severity) for problem in judged.problems]


def test_a_sane_batch_has_no_problems() -> None:
    judged = suite(request("eiffel"), request("pisa"), chat("name", "Who are you?", "I am SmolLM.", subject="you"))
    assert judged.problems == ()
    assert not judged.refused
    assert judged.evidence["statistics"]["successful_expectations"] == 1 + 2 * len(REQUEST_RULES)


def test_what_great_expectations_fails_is_refused_without_a_request_to_blame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "expects", lambda *arguments: (False, {}))
    judged = suite(request("eiffel"))
    assert found(judged) == [("-", "batch.judged", "critical")]
    assert judged.refused


@pytest.mark.parametrize(("bad", "rule", "message"), [
    (request("x", prompt="Where is it?"), "request.subject_in_prompt", "found 0 times in its prompt"),
    (request("x", subject=" "), "request.subject_in_prompt", "put `{}` where the subject stands"),
    (request("x", prompt="{} and {} are in"), "request.subject_in_prompt", "found 2 times"),
    (chat("x", "Who are you?", "SmolLM", subject="the moon"), "request.subject_in_prompt", "found 0 times"),
    (request("x", target="  "), "request.has_target", "its target is empty"),
    (chat("x", "Who are you?", ""), "request.has_target", "write the answer"),
    (request("x", target="Paris", was=" paris."), "request.changes_something", "the same as `was`"),
    (request("x", subject="so " * 100), "request.fits_model", "more than the 64 this model"),
])
def test_an_insane_request_is_refused(bad: UpdateRequest, rule: str, message: str) -> None:
    judged = suite(request("eiffel"), bad)
    assert found(judged) == [("x", rule, "critical")]
    assert message in judged.problems[0].message
    assert str(judged.problems[0]).startswith("request 'x': ")
    assert judged.refused


def test_a_subject_written_out_in_the_prompt_counts_as_found() -> None:
    assert suite(request("x", prompt="The x tower is in", subject="The x tower")).problems == ()


def test_an_id_given_twice_is_refused_once() -> None:
    judged = suite(request("x"), request("x", subject="another tower"))
    assert found(judged) == [("x", "request.unique_id", "critical")]
    assert "given 2 times" in judged.problems[0].message


def test_contradicting_requests_are_both_named() -> None:
    judged = suite(request("a", subject="It"), request("b", subject="it", target="Berlin"), request("c"))
    assert found(judged) == [(name, "request.no_contradiction", "critical") for name in ("a", "b")]
    assert "2 different answers of the same question (see a, b)" in judged.problems[0].message


def test_a_repeated_request_is_a_warning() -> None:
    judged = suite(request("a", subject="It"), request("b", subject="It", target="Rome "))
    assert found(judged) == [(name, "request.no_repeat", "warning") for name in ("a", "b")]
    assert not judged.refused


def test_a_satisfied_request_is_a_warning_and_a_satisfied_batch_is_refused() -> None:
    one = suite(request("a"), request("b"), satisfied={"a": True})
    assert found(one) == [("a", "request.not_satisfied_yet", "warning")]
    assert not one.refused
    both = suite(request("a"), request("b"), satisfied={"a": True, "b": True})
    assert both.refused
    assert "wanted answer to all 2 requests already" in str(both.problems[0])


def test_an_empty_batch_is_refused() -> None:
    judged = suite()
    assert found(judged) == [("-", "batch.not_empty", "critical")]


def test_every_problem_is_told_at_once() -> None:
    judged = suite(request("a", target=""), request("b", was="Rome"), request("c", prompt="no place"))
    assert {problem.request for problem in judged.problems} == {"a", "b", "c"}


def test_its_evidence_holds_no_text_of_requests() -> None:
    text = json.dumps(suite(request("a", target="", subject="Zanzibar")).evidence, allow_nan=False)
    assert "Zanzibar" not in text
    assert "located" not in text


def test_a_request_that_cannot_be_rendered_is_named() -> None:
    def no_template(one: UpdateRequest) -> int:
        raise SheetError("this model's tokenizer has no chat template", "use the form `prompt`, `subject`, `target`")

    with pytest.raises(SheetError, match="request 'x' cannot be rendered: this model's tokenizer has no chat template"):
        request_rows([chat("x", "Who are you?", "SmolLM")], no_template, LIMIT, {})
