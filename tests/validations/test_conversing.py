"""A talk says what the library's own generation says, turn after turn, and reads every token once."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch

from editors.errors import ConfigError, IntegrityError
from editors.loading import LoadedModel
from tests.tiny import END, tiny_model, tiny_tokenizer
from validations.conversing import Conversation, Manner, form_of

LINES = ("Who are you?", "What is the speed of light?", "And in the city of Paris?")
DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    from editors.anatomy import anatomy_of

    loaded = tiny_model()
    return LoadedModel(loaded, tiny_tokenizer(), anatomy_of(loaded.config.to_dict()), "tiny")


@pytest.fixture
def lengths(model: LoadedModel) -> Iterator[list[int]]:
    """How many tokens each run of the model was given."""
    seen: list[int] = []
    hook = model.model.get_input_embeddings().register_forward_hook(lambda _, given, __: seen.append(given[0].shape[-1]))
    yield seen
    hook.remove()


def slowly(model: torch.nn.Module, text: str, count: int) -> str:
    """The likeliest token, again and again, everything read from the beginning each time."""
    tokenizer = tiny_tokenizer()
    ids = tokenizer(text, add_special_tokens=False).input_ids
    end = len(ids)
    with torch.no_grad():
        while len(ids) < end + count and (token := int(model(torch.tensor([ids])).logits[0, -1].argmax())) != 2:
            ids.append(token)
    return tokenizer.decode(ids[end:], skip_special_tokens=True).removesuffix("\N{REPLACEMENT CHARACTER}")


def last(stream: Iterator[str]) -> str:
    *_, whole = stream
    return whole


def edited(model: LoadedModel) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    weight = model.model.get_parameter(DOWN)
    return {DOWN: weight.detach() + torch.randn(weight.shape, generator=draw)}


def test_turns_stand_in_the_template_and_are_answered_as_if_read_anew(model: LoadedModel) -> None:
    talk, text = Conversation(model, {}, "chat", Manner(max_tokens=9)), ""
    for line in LINES:
        text += f"<|im_start|>user\n{line}{END}\n<|im_start|>assistant\n"
        said = last(talk.answer(line))
        assert said == slowly(model.model, text, 9)
        text += f"{talk._turns[-1]['content']}{END}\n"


def test_two_versions_take_turns_on_one_model_and_each_speaks_for_itself(model: LoadedModel) -> None:
    overlay = edited(model)
    other = copy.deepcopy(model.model)
    other.get_parameter(DOWN).data = overlay[DOWN]
    talks = [Conversation(model, over, "plain", Manner(max_tokens=12)) for over in ({}, overlay)]
    grown = list(zip(*(talk.answer(LINES[1]) for talk in talks), strict=False))
    assert len(grown) > 3
    expected = [slowly(one, LINES[1], len(grown)) for one in (model.model, other)]
    assert list(grown[-1]) == expected
    assert expected[0] != expected[1]


def test_what_was_read_is_not_read_again(model: LoadedModel, lengths: list[int]) -> None:
    talk = Conversation(model, {}, "plain", Manner(max_tokens=5))
    ids = talk._ids({"role": "user", "content": LINES[0]})
    last(talk.answer(LINES[0]))
    assert lengths == [len(ids), 1, 1, 1, 1]
    lengths.clear()
    # the plain form's next line that goes on where the last one was read to
    talk._logits((*talk._read, 7, 8, 9))
    assert lengths == [3]


def test_an_answer_cut_short_leaves_no_trace(model: LoadedModel) -> None:
    talk, fresh = (Conversation(model, {}, "chat", Manner(max_tokens=6)) for _ in range(2))
    next(talk.answer("Where is Bordeaux?"))
    assert last(talk.answer(LINES[0])) == last(fresh.answer(LINES[0]))
    talk.reset()
    fresh.reset()
    assert (talk._turns, talk._read) == ([], ())
    assert last(talk.answer(LINES[1])) == last(fresh.answer(LINES[1]))


def test_draws_follow_their_seed_and_the_temperature(model: LoadedModel) -> None:
    def draw(temperature: float, seed: int) -> str:
        return last(Conversation(model, {}, "plain", Manner(temperature, 12, seed)).answer(LINES[0]))

    assert draw(1.5, 1) == draw(1.5, 1) != draw(1.5, 2)
    assert draw(1e-4, 1) == draw(0, 1), "next to nothing is left to chance"
    logits = torch.tensor([2.0, 1.0, -1.0, 0.5])
    talk = Conversation(model, {}, "plain", Manner(temperature=0.7))
    counts = torch.bincount(torch.tensor([talk._choose(logits) for _ in range(4000)]), minlength=4) / 4000
    weights = [2.718281828 ** (value / 0.7) for value in (2.0, 1.0, -1.0, 0.5)]
    torch.testing.assert_close(counts, torch.tensor([weight / sum(weights) for weight in weights]), atol=0.03, rtol=0)


def test_a_model_without_a_template_is_talked_to_in_plain_text(model: LoadedModel) -> None:
    bare = copy.copy(model)
    bare.tokenizer = copy.deepcopy(model.tokenizer)
    bare.tokenizer.chat_template = None
    assert [form_of(bare, plain=False), form_of(model, plain=True), form_of(model, plain=False)] == ["plain", "plain", "chat"]
    assert last(Conversation(bare, {}, "plain", Manner(max_tokens=4)).answer("Who are you? ")) == slowly(
        model.model, "Who are you?", 4)


def test_what_cannot_be_answered_is_said(model: LoadedModel) -> None:
    talk = Conversation(model, {}, "plain")
    with pytest.raises(ConfigError, match=r"the conversation has \d+ tokens, and the model reads 512") as caught:
        last(talk.answer("far too long " * 400))
    assert caught.value.hint == "begin anew with /reset, or ask for less"
    with pytest.raises(ConfigError, match=r"temperature must be in \[0, 5\], got 9"):
        Manner(temperature=9)
    broken = {DOWN: torch.full_like(model.model.get_parameter(DOWN), float("nan"))}
    with pytest.raises(IntegrityError, match="the model's numbers are no numbers"):
        last(Conversation(model, broken, "plain").answer("Who are you?"))
