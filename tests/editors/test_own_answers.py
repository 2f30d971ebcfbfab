"""The model's own answers, read step by step, against whole runs of one prompt at a time."""

from __future__ import annotations

import pytest
import torch

from editors.loading import Checkpoint, LoadedModel, load
from editors.own_answers import own_pairs
from editors.prompts import Encoded
from tests.tiny import FAMILIES, SENTENCES, tiny_folder


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param)))


def prompts_of(model: LoadedModel) -> list[Encoded]:
    """Of several lengths; what stands after a prompt is not read."""
    found = [tuple(model.tokenizer(text)["input_ids"]) for text in SENTENCES]
    return [Encoded(ids, 2 + 3 * number, 0) for number, ids in enumerate(found)]


@torch.no_grad()
def alone(model: LoadedModel, prompt: Encoded, tokens: int) -> tuple[int, ...]:
    ids = list(prompt.ids[:prompt.prompt_length])
    for _ in range(tokens):
        ids.append(int(model.model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == model.tokenizer.eos_token_id:
            break
    return tuple(ids)


def test_answers_are_those_of_each_prompt_alone(model: LoadedModel) -> None:
    prompts = prompts_of(model)
    found = own_pairs(model, prompts, 6)
    assert [one.ids for one in found] == [alone(model, prompt, 6) for prompt in prompts]
    assert [(one.prompt_length, one.anchor) for one in found] == [
        (prompt.prompt_length, prompt.prompt_length - 1) for prompt in prompts]


def test_an_answer_ends_with_the_end_token(model: LoadedModel) -> None:
    prompts, end = prompts_of(model), model.tokenizer.eos_token
    [first, *_] = own_pairs(model, prompts[:1], 3)
    model.tokenizer.eos_token = model.tokenizer.convert_ids_to_tokens(first.ids[first.prompt_length])
    try:
        found = own_pairs(model, prompts, 6)
        assert found[0].ids == first.ids[:first.prompt_length + 1]
        assert [one.ids for one in found] == [alone(model, prompt, 6) for prompt in prompts]
    finally:
        model.tokenizer.eos_token = end
