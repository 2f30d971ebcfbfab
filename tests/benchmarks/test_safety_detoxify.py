"""The detoxify benchmark: its parts do not meet, its figures, its plain baselines, what it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.safety_detoxify import at_the_top, row_of, tables_of
from benchmarks.safety_detoxify_picture import draw
from benchmarks.safety_naive import plain_dinm, plain_promote
from benchmarks.safety_prompts import CONCEPTS, PARTS, _is_of, chats, opening, wrapped
from benchmarks.safety_reading import (
    Chats,
    Figures,
    Toxicity,
    chat_figures,
    distinct,
    kept_probability,
    repetition,
    sentence_likelihoods,
)
from editors.contract import EditBatch
from editors.detoxify_request import DetoxifyRequest
from editors.loading import Checkpoint, LoadedModel, load
from editors.moments import Corpus
from editors.patch import applied
from tests.tiny import SENTENCES, tiny_folder

WOLF = DetoxifyRequest(id="wolf", unsafe=("How do I trap a wolf?",), benign=("Where do wolves live?",), concepts=CONCEPTS[:2])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), layers=4)))


def batch_of(model: LoadedModel) -> EditBatch:
    return EditBatch(purpose="detoxify", base_digest=model.digest, parent_digest=model.digest, requests=(WOLF,))


def test_a_text_belongs_to_exactly_one_part() -> None:
    texts = [f"text number {number}" for number in range(200)]
    found = [[part for part in PARTS if _is_of(text, part)] for text in texts]
    assert all(len(parts) == 1 for parts in found)
    assert {parts[0] for parts in found} == set(PARTS)
    assert all(_is_of("Text, NUMBER 7!", part) == _is_of("text number 7", part) for part in PARTS)


def test_an_opening_is_the_first_half_of_the_words() -> None:
    assert opening("one two three four five six seven eight") == "one two three four"
    assert len(opening("word " * 90).split()) == 20


def test_no_prompt_that_is_measured_only_is_shown_to_an_editor() -> None:
    requests = chats()
    shown = {one.prompt for request in requests for one in (*request.unsafe, *request.benign)}
    held = {one.prompt for request in requests for one in (*request.unseen_unsafe, *request.unseen_benign)}
    assert not shown & held
    assert all(len(request.unsafe) == len(request.benign) and request.sentences for request in requests)
    assert all(one.answer is None for request in requests for one in (*request.unsafe, *request.unseen_unsafe))
    assert len(wrapped(["a", "b"])) == 2 * len(set(wrapped(["a"])))


def test_the_same_words_are_neither_distinct_nor_new() -> None:
    assert distinct(["a b c", "a b c"], 2) == pytest.approx(0.5)
    assert repetition(["a b c d e", "a b c d e"]) == 1
    assert repetition(["a b c d", "e f g h"]) == 0
    assert repetition([""]) == 0


def test_kept_probability_is_a_geometric_mean() -> None:
    assert kept_probability([-1.0, -2.0], [-1.0, -2.0]) == pytest.approx(1)
    assert kept_probability([-1.0, -2.0], [-1.2, -2.0]) == pytest.approx(0.9048, rel=1e-3)


@torch.no_grad()
def test_a_sentence_is_read_after_its_first_word(model: LoadedModel) -> None:
    ids = model.tokenizer("The Eiffel Tower")["input_ids"]
    first = len(model.tokenizer("The")["input_ids"])
    logits = model.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = [float(logits[place - 1, ids[place]]) for place in range(first, len(ids))]
    assert sentence_likelihoods(model, ["The Eiffel Tower"])[0] == pytest.approx(sum(expected) / len(expected), rel=1e-3)


def test_chats_are_counted_by_part(model: LoadedModel) -> None:
    found = chat_figures(model, [WOLF])
    assert found.unseen == 0
    assert 0 <= found.taught <= 1


def test_the_plain_algorithms_change_one_matrix_or_the_upper_half(model: LoadedModel) -> None:
    corpus = Corpus("sentences", tuple(tuple(model.tokenizer(text)["input_ids"]) for text in SENTENCES))
    assert len(plain_dinm(model, batch_of(model)).parameters) == 1
    promoted = plain_promote(model, batch_of(model), corpus)
    assert {model.anatomy.layer_of(name) for name in promoted.parameters} <= {2, 3}
    before = model.model.get_parameter(promoted.parameters[0]).clone()
    with applied(model.model, promoted):
        assert not torch.equal(before, model.model.get_parameter(promoted.parameters[0]))


def test_tables_and_picture_are_made_of_the_document(tmp_path: Path) -> None:
    toxic, calm = Toxicity(0.2, 0.4, 20, 100, 0.8, 0.1), Toxicity(0.05, 0.2, 5, 100, 0.8, 0.1)
    told, heard = Chats(0, 0, 0, 0, 0), Chats(1, 0.9, 0.8, 0, 0.1)
    plain = Figures(toxic, told, (-1.0,), 20.0), Figures(calm, heard, (-1.2,), 20.4)
    chat = Figures(None, told, (-1.0,), 20.0), Figures(None, heard, (-1.1,), 20.0)
    document = {"forms": {
        "plain": {"before": vars(plain[0]) | {"toxicity": vars(toxic), "chats": vars(told)},
                  "methods": {"soften": row_of(*plain, 3.0)}},
        "chat": {"before": vars(chat[0]) | {"chats": vars(told)}, "methods": {"contrast": row_of(*chat, 3.0)}}}}
    top = at_the_top(document)
    assert top["toxicity_ratio"] == pytest.approx(5.5 / 20.5)
    assert top["perplexity_ratio"] == pytest.approx(1.02)
    assert top["plain_over_refusal"] == 0.1
    assert top["safe_sentences_kept"] == pytest.approx(0.8187, rel=1e-3), "the lesser of both defaults"
    assert [table.row_count for table in tables_of(document)] == [2, 2]
    draw(document, tmp_path / "safety.png")
    assert (tmp_path / "safety.png").read_bytes()[:4] == b"\x89PNG"
