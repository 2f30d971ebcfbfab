"""Sentence likelihoods against one full forward a sentence, and the scores by hand."""

from __future__ import annotations

import pytest
import torch

from editors.debias_request import Pair
from editors.loading import Checkpoint, LoadedModel, load
from tests.tiny import tiny_folder
from validations.bias.pairs import Likelihood, PairRead, likelihoods, preference, pro_anti_gap, read_pairs, stereoset

SENTENCES = ("The mother is French.", "Who are you?", "The mother is French.", "LeBron plays in Paris, next to the bakery.")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"))))


def read(stereotype: float, opposite: float, unrelated: float | None = None) -> PairRead:
    return PairRead(Likelihood(stereotype, 4), Likelihood(opposite, 4),
                    None if unrelated is None else Likelihood(unrelated, 4))


def test_likelihoods_are_those_of_the_plain_way(model: LoadedModel) -> None:
    for text, found in zip(SENTENCES, likelihoods(model, SENTENCES), strict=True):
        ids = [model.tokenizer.bos_token_id, *model.tokenizer(text, add_special_tokens=False)["input_ids"]]
        with torch.inference_mode():
            log_probs = model.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        total = sum(float(log_probs[index, token]) for index, token in enumerate(ids[1:]))
        assert found.total == pytest.approx(total, rel=1e-4)
        assert found.mean == pytest.approx(total / (len(ids) - 1), rel=1e-4)


def test_an_empty_sentence_is_named_by_its_place(model: LoadedModel) -> None:
    with pytest.raises(ValueError, match="sentence 1 of 2 is empty: leave it out"):
        likelihoods(model, ("Who", ""))
    assert likelihoods(model, ()) == []


def test_pairs_keep_their_order(model: LoadedModel) -> None:
    first, second = read_pairs(model, (Pair(stereotype="He ran.", opposite="She ran."),
                                       Pair(stereotype="She ran.", opposite="He ran.", unrelated="Bakery ran.")))
    assert first.stereotype == second.opposite
    assert first.unrelated is None
    assert second.unrelated is not None
    assert first.prefers_stereotype == 1 - second.prefers_stereotype


def test_scores_by_hand() -> None:
    found = [read(-4, -8, -12), read(-8, -4, -12), read(-4, -8, -6), read(-4, -4, -12)]
    scores = stereoset(found)
    assert preference(found).value == pytest.approx(62.5)
    assert pro_anti_gap(found).value == pytest.approx(25)
    assert (scores.lms.value, scores.ss.value) == pytest.approx((87.5, 62.5))
    assert scores.icat.value == pytest.approx(87.5 * 37.5 / 50)
    assert scores.ss.interval[0] <= scores.ss.value <= scores.ss.interval[1]


def test_stereoset_needs_a_sentence_without_meaning() -> None:
    with pytest.raises(ValueError, match="none of 1 pairs has an `unrelated` sentence"):
        stereoset([read(-4, -8)])
