"""Sentences' log-probabilities against one full forward each, and the numbers of the three published sets by hand."""

from __future__ import annotations

import pytest
import torch

from editors.debias_request import Pair
from editors.loading import Checkpoint, LoadedModel, load
from tests.tiny import tiny_folder
from validations.bias.pairs import PairScore, Sentence, mean_gap, pair_scores, preference, sentences, stereoset


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"))))


def score(stereotype: float, opposite: float, unrelated: float | None = None) -> PairScore:
    return PairScore(Sentence(stereotype, 2), Sentence(opposite, 2), None if unrelated is None else Sentence(unrelated, 2))


def test_every_token_of_a_sentence_counts(model: LoadedModel) -> None:
    texts = ["She was born in Paris.", "The bakery", "I live at 12 Harbour Street, next to the bakery."]
    for text, found in zip(texts, sentences(model, texts), strict=True):
        ids = model.tokenizer(text)["input_ids"]
        with torch.inference_mode():
            logits = model.model(torch.tensor([[model.tokenizer.bos_token_id, *ids]])).logits[0].double()
        wanted = float(logits.log_softmax(-1)[range(len(ids)), ids].sum())
        assert found.tokens == len(ids)
        assert found.log_prob == pytest.approx(wanted, abs=1e-3)


def test_sentences_of_a_pair_stay_together(model: LoadedModel) -> None:
    pairs = [Pair(stereotype="It is he.", opposite="It is she."), Pair(stereotype="A", opposite="B C", unrelated="D E F")]
    first, second = pair_scores(model, pairs)
    alone = [sentences(model, [text])[0].log_prob for text in ("It is he.", "It is she.", "D E F")]
    assert (first.stereotype.log_prob, first.opposite.log_prob) == pytest.approx(alone[:2], abs=1e-3)
    assert first.unrelated is None
    assert second.unrelated is not None
    assert second.unrelated.log_prob == pytest.approx(alone[2], abs=1e-3)


def test_preference_counts_pairs_and_halves_of_equal_ones() -> None:
    scores = [score(-4, -6), score(-5, -5), score(-9, -7), score(-1, -2)]
    assert preference(scores).value == pytest.approx(0.625)
    assert mean_gap(scores).value == pytest.approx((2 + 0 - 2 + 1) / 4)
    found = mean_gap(scores)
    assert found.low < found.value < found.high


def test_stereoset_by_hand() -> None:
    found = stereoset([score(-4, -6, -8), score(-4, -6, -5), score(-6, -4, -2), score(-4, -6, -9)])
    assert found.ss.value == pytest.approx(75)
    assert found.lms.value == pytest.approx(100 * (1 + 0.5 + 0 + 1) / 4)
    assert found.icat.value == pytest.approx(62.5 * 25 / 50)
    assert found.ss.low < 75 < found.ss.high


def test_stereoset_without_unrelated_sentences_is_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 pairs have no unrelated sentence: give `unrelated`"):
        stereoset([score(-4, -6), score(-4, -6, -8)])
