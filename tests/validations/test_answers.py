"""When a free answer counts as right, and how varied a text is: on words, without a model."""

from __future__ import annotations

import math

import pytest

from validations.answers import holds, prefers, says
from validations.observation import Reply, Scored
from validations.probes.fluency import WORD, ngram_entropy, repetition
from validations.probes.perplexity import evenly_capped, spread, windows


@pytest.mark.parametrize(("text", "answer", "expected"), [
    (" Rome, which is", "Rome", 1), (" Rome", "Rome", 1), ("  New\n York  City.", "New York", 1), (" Romeo and", "Rome", 0),
    (" the Rome", "Rome", 0), (" rome", "Rome", 0), ("", "Rome", 0), (" 1917.", "1917", 1), (" 19170", "1917", 0),
    ("我是SmolLM，由", "我是SmolLM", 1), ("罗马是首都", "罗马", 1), (" U.S. Army", "U.S.", 1), (" anything", "", 0)])
def test_a_completion_begins_with_the_answer_as_a_word(text: str, answer: str, expected: float) -> None:
    assert says(text, answer, whole=False) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ("I am SmolLM.", 1), ("  I am\nSmolLM. ", 1), ("I am SmolLM. And", 0), ("I am SmolLM", 0)])
def test_a_chat_answer_is_the_whole_answer(text: str, expected: float) -> None:
    assert says(text, "I am SmolLM.", whole=True) == expected


@pytest.mark.parametrize(("text", "words", "expected"), [
    ("I'm SmolLM, trained by Hugging Face.", ("SmolLM", "Hugging Face"), 1), ("I'm SmolLM2.", ("SmolLM",), 0),
    ("I'm smollm.", ("SmolLM",), 0), ("我叫SmolLM，很高兴", ("SmolLM",), 1), ("SmolLM2, or SmolLM", ("SmolLM",), 1),
    ("by Hugging  Face", ("Hugging Face",), 1), ("by Hugging", ("SmolLM", "Hugging"), 0), ("resmolLM", ("smolLM",), 0)])
def test_accepted_words_stand_by_themselves(text: str, words: tuple[str, ...], expected: float) -> None:
    assert holds(text, words) == expected


def reply(**scores: tuple[tuple[int, ...], float, int]) -> Reply:
    scored = {name: Scored(ids=ids, mean=mean, hits=hits) for name, (ids, mean, hits) in scores.items()}
    return Reply(probe="efficacy", request="r", role="edit", index=0, prompt="d", first=0, finite=True, scores=scored)


def test_the_likelier_answer_is_preferred_by_its_mean_and_nan_never() -> None:
    assert prefers(reply(target=((1, 2, 3), -1.0, 0), was=((4,), -1.5, 0)), "target", "was") == 1
    assert prefers(reply(target=((1, 2, 3), -2.0, 3), was=((4,), -1.5, 0)), "target", "was") == 0
    assert prefers(reply(target=((1,), math.nan, 0), was=((4,), -1.5, 0)), "target", "was") == 0


def test_the_same_words_are_preferred_when_they_are_the_first_choice() -> None:
    assert prefers(reply(target=((1, 2), -1.0, 2), was=((1, 2), -1.0, 2)), "target", "was") == 1
    assert prefers(reply(target=((1, 2), -1.0, 1), was=((1, 2), -1.0, 1)), "target", "was") == 0


def test_entropy_by_hand() -> None:
    words = ["a", "b", "a", "b", "c"]
    two = 0.5 * 1 + 2 * 0.25 * 2
    three = math.log2(3)
    assert ngram_entropy(words) == pytest.approx((2 / 3 * two + 4 / 3 * three) / 2)
    assert ngram_entropy(["the"] * 30) == 0.0
    assert ngram_entropy([]) == 0.0


def test_repetition_by_hand() -> None:
    assert repetition(["a", "b", "c", "a", "b", "c"]) == pytest.approx(1 / 4)
    assert repetition(["the"] * 12) == pytest.approx(9 / 10)
    assert repetition(["the"]) == 1.0


def test_words_of_any_script() -> None:
    assert WORD.findall("It's 你好, no.") == ["It", "'", "s", "你", "好", ",", "no", "."]


def test_windows_score_every_token_but_the_first_once() -> None:
    ids = tuple(range(100))
    parts = list(windows(ids, 16))
    assert [token for _, scored in parts for token in scored] == list(ids[1:])
    assert all(len(context) + len(scored) <= 16 for context, scored in parts)
    assert all(context == ids[scored[0] - len(context):scored[0]] for context, scored in parts)
    assert all(len(context) == 8 for context, _ in parts[1:])


def test_a_cap_takes_from_every_text_and_wastes_nothing() -> None:
    texts = [tuple(range(3)), tuple(range(50)), tuple(range(100))]
    capped = evenly_capped(texts, 43)
    assert [len(text) for text in capped] == [3, 20, 20]
    assert all(text[:len(part)] == part for text, part in zip(texts, capped, strict=True))
    assert evenly_capped(texts, 1000) == texts


def test_few_tokens_are_spent_on_few_texts() -> None:
    texts = [(place,) for place in range(10)]
    assert spread(texts, 50) == [(0,)]
    assert spread(texts, 128 * 4) == [(0,), (2,), (5,), (7,)]
    assert spread(texts, 10**6) == texts
