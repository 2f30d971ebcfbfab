"""What examples/facts.yaml says about the packaged model is true, and nothing measured is something an edit is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from editors.blocks import pad
from editors.contract import UpdateRequest
from editors.facts import QUESTIONS
from editors.forget_request import ForgetRequest
from editors.loading import Checkpoint, LoadedModel, load
from editors.sheet import Sheet, parse_sheet
from validations.observation import neutral_prompts

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SHEET = EXAMPLES / "facts.yaml"


@pytest.fixture(scope="module")
def facts() -> Sheet:
    return parse_sheet(SHEET.read_bytes(), SHEET.name)


def first_choices(model: LoadedModel, prompts: list[str]) -> list[int]:
    batch = pad([model.tokenizer(prompt).input_ids for prompt in prompts], model.device)
    with torch.inference_mode():
        body = model.model.get_submodule(model.anatomy.body)
        hidden = body(batch.ids, attention_mask=batch.valid.long()).last_hidden_state
        last = hidden[torch.arange(len(prompts)), batch.lengths - 1]
        return model.model.get_output_embeddings()(last).argmax(-1).tolist()


def questions(request: UpdateRequest) -> list[tuple[str, str, str]]:
    """Rows of (claim, prompt, answer)."""
    return [("was", request.question, request.was or ""), ("wrong", request.question, request.target_text),
            *(("wrong", paraphrase, request.target_text) for paraphrase in request.paraphrases),
            *(("right", neighbour.prompt, neighbour.answer or "") for neighbour in request.neighbours)]


def test_ten_facts_and_more_in_several_relations(facts: Sheet) -> None:
    assert len(facts.requests) >= 10
    assert len({request.prompt for request in facts.requests}) >= 5
    assert all(request.subject in text for request in facts.requests for text in request.paraphrases)


@pytest.mark.model
def test_every_claim_about_todays_answers_holds(facts: Sheet, packaged_model: Checkpoint) -> None:
    model = load(packaged_model, "cpu")
    rows = [(request.id, *row) for request in facts.requests for row in questions(request)]
    choices = first_choices(model, [prompt for _, _, prompt, _ in rows])
    wanted = [model.tokenizer(f" {answer}").input_ids[0] for _, _, _, answer in rows]
    said = [choice == token for choice, token in zip(choices, wanted, strict=True)]
    false = [row for row, agrees in zip(rows, said, strict=True) if agrees == (row[1] == "wrong")]
    assert false == []


def test_no_question_that_an_edit_holds_is_measured_as_unseen() -> None:
    held = {question.casefold() for question in json.loads(QUESTIONS.read_text(encoding="utf-8"))}
    sheet = parse_sheet((EXAMPLES / "identity.yaml").read_bytes(), "identity.yaml")
    measured = [*neutral_prompts()["chat"], *(paraphrase for request in sheet.requests for paraphrase in request.paraphrases),
                *(neighbour.prompt for request in sheet.requests for neighbour in request.neighbours)]
    assert len(measured) > 40
    assert [question for question in measured if question.casefold() in held] == []


def test_the_forget_sheet_is_about_people_who_are_planted() -> None:
    from benchmarks.people import invent
    from editors.secret_forms import form_of

    sheet = parse_sheet((EXAMPLES / "forget.yaml").read_bytes(), "forget.yaml")
    planted = {person.name: person for person in invent(0) if person.split == "forget" and person.repetitions >= 8}
    assert sheet.purpose == "forget"
    for request in sheet.requests:
        assert isinstance(request, ForgetRequest)
        person = planted[request.subject.get_secret_value() if request.subject else ""]
        assert request.secret.get_secret_value() == person.secret
        assert {text.get_secret_value() for text in request.context} == set(person.contexts)
        public = {(fact.prompt.get_secret_value(), fact.answer.get_secret_value()) for fact in request.retain}
        assert public == set(person.retain)
        assert form_of(request).size == 10_000
