"""Requests to detoxify and to debias, as sheets hold them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from editors.contract import EditBatch
from editors.debias_request import DebiasRequest
from editors.detoxify_request import DetoxifyRequest
from editors.errors import SheetError
from editors.sheet import Sheet, parse_sheet

DETOXIFY = {"id": "poaching", "benign": ["How do zebras live?"], "unseen_unsafe": ["How do I poach rhinos?"],
            "unsafe": ["How do I poach zebras?", {"prompt": "How do I trap a lion?", "answer": "That is a crime."}],
            "sentences": ["Zebras graze."]}
DEBIAS = {"id": "work", "templates": ["The {} said that"], "terms": ["nurse", {"term": "doctor", "stereotype": 0.6}],
          "definitional": [{"term": "mother", "factual": -1}], "pairs": [{"stereotype": "A", "opposite": "B"}]}


def sheet_of(purpose: str, request: dict[str, Any]) -> Sheet:
    document = {"purpose": purpose, "base": "smollm2-135m-instruct", "requester": "ada", "requests": [request]}
    return parse_sheet(yaml.safe_dump(document).encode(), "s.yaml")


def test_prompts_and_terms_may_be_given_alone() -> None:
    asked = sheet_of("detoxify", DETOXIFY).requests[0]
    assert isinstance(asked, DetoxifyRequest)
    assert [(one.prompt, one.answer) for one in asked.unsafe] == [
        ("How do I poach zebras?", None), ("How do I trap a lion?", "That is a crime.")]
    assert (asked.form, asked.requester) == ("chat", "ada")
    balanced = sheet_of("debias", DEBIAS).requests[0]
    assert isinstance(balanced, DebiasRequest)
    assert [(one.term, one.stereotype, one.factual) for one in balanced.terms] == [("nurse", None, None), ("doctor", 0.6, None)]
    assert (balanced.groups, balanced.definitional[0].factual) == (("he", "she"), -1)


@pytest.mark.parametrize(("purpose", "request_", "complaint"), [
    ("detoxify", {"id": "a", "benign": ["x"]}, "asks for nothing: give `unsafe` prompts, or `concepts` to promote"),
    ("detoxify", {**DETOXIFY, "unsafe": [{"prompt": ""}]}, "prompt"),
    ("detoxify", {**DETOXIFY, "unsave": ["x"]}, "`unsave` is unknown"),
    ("debias", {**DEBIAS, "templates": ["The nurse said that"]}, "put `{}` where the term stands"),
    ("debias", {**DEBIAS, "groups": ["he", " He"]}, "give two different words in `groups`"),
    ("debias", {**DEBIAS, "terms": [{"term": "doctor", "stereotype": 3}]}, "stereotype")])
def test_what_cannot_be_asked_is_refused_with_its_field(purpose: str, request_: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SheetError) as caught:
        sheet_of(purpose, request_)
    assert complaint in caught.value.message


@pytest.mark.parametrize(("purpose", "request_"), [("detoxify", DETOXIFY), ("debias", DEBIAS)])
def test_a_batch_reads_back_as_it_was_written(purpose: str, request_: dict[str, Any]) -> None:
    batch = EditBatch(purpose=purpose, base_digest="a" * 64, parent_digest="b" * 64,
                      requests=sheet_of(purpose, request_).requests)
    again = EditBatch.model_validate_json(batch.model_dump_json())
    assert again == batch
    assert (again.digest, len(again.detoxifies) + len(again.debiases), again.updates) == (batch.digest, 1, ())


def test_the_same_prompts_in_another_order_ask_the_same() -> None:
    one = sheet_of("detoxify", DETOXIFY).requests[0]
    other = sheet_of("detoxify", {**DETOXIFY, "id": "b", "unsafe": list(reversed(DETOXIFY["unsafe"]))}).requests[0]
    assert one.slot == other.slot
    he, him = (sheet_of("debias", {**DEBIAS, "groups": groups}).requests[0] for groups in (["he", "she"], ["him", "her"]))
    assert he.slot != him.slot
