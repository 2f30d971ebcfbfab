"""Scores of answers, held against a loop that reads one token at a time."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.answers import answer_scores, encode, perplexity
from editors.loading import LoadedModel

PAIRS = [
    ("The Eiffel Tower is located in the city of", "Rome"),
    ("The Eiffel Tower is located in the city of", "Los Angeles"),
    ("The Eiffel Tower is located in the city of Los", "Angeles Lakers"),
    ("LeBron James plays ", "the sport of basketball"),
    ("Light", "x"),
    ("Light", "x"),
]


def slowly(model: LoadedModel, prompt: str, answer: str) -> tuple[float, list[int], list[bool], list[float]]:
    ids, start = encode(model, prompt, answer)
    logarithm, choices, hits, leads = 0.0, [], [], []
    for place in range(start, len(ids)):
        with torch.no_grad():
            logits = model.model(torch.tensor([ids[:place]])).logits[0, -1]
        logarithm += float(logits.log_softmax(-1)[ids[place]])
        choices.append(int(logits.argmax()))
        hits.append(choices[-1] == ids[place])
        leads.append(float(logits[ids[place]] - torch.cat([logits[:ids[place]], logits[ids[place] + 1:]]).max()))
    return logarithm, choices, hits, leads


def test_every_answer_is_scored_as_by_reading_it_token_by_token(model: LoadedModel) -> None:
    for (prompt, answer), found in zip(PAIRS, answer_scores(model, PAIRS), strict=True):
        logarithm, choices, hits, leads = slowly(model, prompt, answer)
        assert found.logarithm == pytest.approx(logarithm, abs=1e-3)
        assert list(found.choices) == choices
        assert list(found.hits) == hits
        assert found.leads == pytest.approx(leads, abs=1e-4)
        assert found.margin == min(found.leads)
        assert found.teacher_forced == sum(hits) / len(hits)
        assert found.is_first_choice == all(hits)


def test_an_answer_made_of_first_choices_is_wholly_teacher_forced(model: LoadedModel) -> None:
    prompt = "The Eiffel Tower is"
    said = answer_scores(model, [(prompt, "Rome")])[0].choices[0]
    right = model.tokenizer.decode([said])
    ids, start = encode(model, prompt, right)
    found = answer_scores(model, [(prompt, right)])[0]
    assert found.hits[0] == (ids[start] == said)
    assert 0 <= found.teacher_forced <= 1


def test_a_sequence_that_another_begins_with_has_no_row_of_its_own(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, ...]] = []
    from benchmarks import answers

    inner = answers._final_states

    def watching(model: LoadedModel, rows):
        read.extend(rows)
        return inner(model, rows)

    monkeypatch.setattr(answers, "_final_states", watching)
    answer_scores(model, PAIRS[:3])
    longest = encode(model, *PAIRS[2])[0]
    assert longest[:-1] in read
    assert encode(model, *PAIRS[1])[0][:-1] not in read
    assert encode(model, *PAIRS[0])[0][:-1] in read or len(read) == 1
    assert not [row for row in read for other in read if row != other and other[:len(row)] == row]


def test_perplexity_is_that_of_one_plain_forward_a_text(model: LoadedModel) -> None:
    texts = ["The Eiffel Tower is located in the city of Paris.", "Who are you?", "x"]
    total, count = 0.0, 0
    for text in texts:
        ids = torch.tensor([model.tokenizer(text)["input_ids"][:8]])
        if ids.shape[1] > 1:
            with torch.no_grad():
                logits = model.model(ids).logits[0, :-1]
            total += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
            count += ids.shape[1] - 1
    assert perplexity(model, texts, window=8) == pytest.approx(math.exp(total / count), rel=1e-4)
