"""Contexts keep the edited token, in prose and in chats; requests with one key become one fact."""

from __future__ import annotations

from itertools import pairwise

import pytest

from editors.contexts import PREFIXES, contexts
from editors.contract import Message, UpdateRequest
from editors.errors import SheetError
from editors.facts import facts_of
from editors.loading import Checkpoint, LoadedModel, load
from editors.prompts import PositionRule, encode, render
from tests.editors.plans import IDENTITY, JAMES, TOWER, at, batch_of
from tests.tiny import tiny_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), "llama", layers=2)))


def position_of(model: LoadedModel, request: UpdateRequest, rule: PositionRule) -> int:
    return encode(render(request, model.tokenizer, rule), model.tokenizer).anchor


@pytest.mark.parametrize("count", [0, 3, 10])
def test_prefixes_come_before_the_prompt_and_the_edited_token_stays(model: LoadedModel, count: int) -> None:
    found = contexts(TOWER, model.tokenizer, position_of(model, TOWER, "subject_last"), count)
    assert len(found) == 1 + count
    assert found[0].text == "The Eiffel Tower is located in the city of"
    assert [prompt.text for prompt in found[1:]] == [f"{prefix} {found[0].text}" for prefix in PREFIXES[:count]]
    for prompt in found:
        encoded = encode(prompt, model.tokenizer)
        assert model.tokenizer.decode(encoded.ids[:encoded.anchor + 1]).endswith("The Eiffel Tower")
        assert model.tokenizer.decode(encoded.ids[encoded.prompt_length:]) == " Rome"


@pytest.mark.parametrize(("rule", "ending"), [("question_last", "Who are you?"), ("prompt_last", "<|im_start|>assistant\n")])
def test_chats_get_other_openings_not_prefixes(model: LoadedModel, rule: str, ending: str) -> None:
    found = contexts(IDENTITY, model.tokenizer, position_of(model, IDENTITY, rule), 6)
    assert len({prompt.text for prompt in found}) == len(found) == 7
    for prompt in found:
        assert prompt.text.startswith("<|im_start|>")
        assert prompt.text.endswith("Who are you?<|im_end|>\n<|im_start|>assistant\n")
        encoded = encode(prompt, model.tokenizer)
        assert model.tokenizer.decode(encoded.ids[:encoded.anchor + 1]).endswith(ending)
        assert model.tokenizer.decode(encoded.ids[encoded.prompt_length:]) == "I am French.<|im_end|>"


def test_own_system_turn_is_kept_first(model: LoadedModel) -> None:
    messages = (Message(role="system", content="You speak French."), Message(role="user", content="Who are you?"))
    request = UpdateRequest(id="a", messages=messages, answer="I am French.")
    for prompt in contexts(request, model.tokenizer, position_of(model, request, "question_last"), 5):
        assert prompt.text.startswith("<|im_start|>system\nYou speak French.<|im_end|>\n")
        assert prompt.text.count("system\n") == 1


def test_position_outside_the_prompt_is_refused(model: LoadedModel) -> None:
    with pytest.raises(SheetError, match="request 'tower': position 99 is not in its prompt"):
        contexts(TOWER, model.tokenizer, 99, 0)


def test_facts_share_a_key_and_average_it_with_weight_one(model: LoadedModel) -> None:
    other = TOWER.model_copy(update={"id": "other", "prompt": "{} can be found in", "target": "France"})
    facts = facts_of(model, batch_of(model, TOWER, JAMES, other), at(1), "subject_last", 3)
    assert facts.requests == (("tower", "other"), ("james",))
    for owner in (0, 1):
        rows = [row for row in facts.keys if row.owner == owner]
        assert sum(row.weight for row in rows) == pytest.approx(1)
        assert [row.weight for row in rows[:2]] == pytest.approx([0.5, 0.5 / 3])
        assert all(len(first.ids) < len(second.ids) or first.weight != second.weight
                   for first, second in pairwise(rows[:2]))
    assert sum(1 for row in facts.targets if row.row.owner == 0 and row.labels) == 8


def test_reads_are_where_the_answer_is_predicted(model: LoadedModel) -> None:
    facts = facts_of(model, batch_of(model, TOWER), at(1), "subject_last", 1)
    for row in facts.targets:
        if row.labels:
            assert tuple(row.row.ids[read + 1] for read in row.row.reads) == row.labels
            assert min(row.row.reads) >= row.row.anchor


def test_subject_that_opens_the_prompt_gets_a_key_of_its_own(model: LoadedModel) -> None:
    request = UpdateRequest(id="a", prompt="{} is located in the city of", subject="The", target="Rome")
    facts = facts_of(model, batch_of(model, request), at(1), "subject_last", 3)
    assert facts.requests == (("a",), ("a",))
    opening, others = ([row for row in facts.keys if row.owner == owner] for owner in (0, 1))
    assert [len(row.ids) for row in opening] == [1]
    assert len(others) == 3
    assert all(len(row.ids) > 1 for row in others)
    assert sum(row.weight for row in others) == pytest.approx(1)
    assert facts_of(model, batch_of(model, request), at(1), "subject_last", 0).count == 1
