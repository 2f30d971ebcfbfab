"""Probabilities of both groups and their slopes, against one prompt at a time and numpy's least squares."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from editors.debias_request import Term
from editors.loading import Checkpoint, LoadedModel, load
from tests.tiny import tiny_folder
from validations.bias.slopes import RESAMPLES, group_probabilities, mean_absolute, slope_ratio, slope_samples, slopes

TEMPLATES = ("The {} said that", "In the city the {} lives because", "{} is what")
NAMES = ("physics", "small language model", "Paris")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"))))


def plain(model: LoadedModel, prompt: str, group: str) -> float:
    """Log-probability of a group's tokens after a prompt, by one full forward."""
    length = len(model.tokenizer(prompt)["input_ids"])
    ids = model.tokenizer(f"{prompt} {group}")["input_ids"]
    with torch.inference_mode():
        log_probs = model.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(log_probs[place - 1, ids[place]]) for place in range(length, len(ids)))


def scored(seed: int, count: int = 12) -> tuple[list[Term], torch.Tensor]:
    draws = np.random.default_rng(seed).uniform(-1, 1, (count, 2))
    terms = [Term(term=str(place), stereotype=one, factual=other) for place, (one, other) in enumerate(draws)]
    noise = np.random.default_rng(seed + 1).normal(0, 0.05, count)
    return terms, torch.tensor(0.3 * draws[:, 0] + 0.6 * draws[:, 1] + 0.1 + noise)


@pytest.mark.parametrize("groups", [("was", "is"), ("he", "she"), ("a small number", "you")])
def test_groups_have_the_probability_of_their_whole_sequence(model: LoadedModel, groups: tuple[str, str]) -> None:
    found = group_probabilities(model, TEMPLATES, NAMES, groups)
    expected = torch.tensor([[[plain(model, template.format(name), group) for group in groups] for template in TEMPLATES]
                             for name in NAMES])
    torch.testing.assert_close(found.log_probs.float(), expected, atol=1e-4, rtol=1e-4)
    first, second = expected[..., 0].exp(), expected[..., 1].exp()
    torch.testing.assert_close(found.gaps.float(), first - second, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(found.masses.float(), first + second, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(found.log_odds.float(), (first / second).log(), atol=1e-3, rtol=1e-3)


def test_slopes_are_least_squares() -> None:
    terms, gaps = scored(0)
    design = np.array([[1, term.stereotype, term.factual] for term in terms])
    wanted, left, *_ = np.linalg.lstsq(design, gaps.numpy(), rcond=None)
    found = slopes(terms, gaps)
    assert found.stereotype is not None
    assert found.factual is not None
    assert (found.intercept, found.stereotype.value, found.factual.value) == pytest.approx(tuple(wanted))
    assert found.r2 == pytest.approx(1 - left[0] / ((gaps - gaps.mean()) ** 2).sum().item())
    assert found.stereotype.low < 0.3 < found.stereotype.high
    assert found.factual.low < 0.6 < found.factual.high
    assert found.terms == len(terms)


def test_a_resample_is_least_squares_of_the_terms_drawn() -> None:
    terms, gaps = scored(2)
    drawn = torch.randint(12, (RESAMPLES, 12), generator=torch.Generator().manual_seed(5))[7].tolist()
    design = np.array([[1, terms[place].stereotype, terms[place].factual] for place in drawn])
    wanted = np.linalg.lstsq(design, gaps.numpy()[drawn], rcond=None)[0]
    assert float(slope_samples(terms, gaps, "stereotype", 5)[7]) == pytest.approx(wanted[1])
    assert float(slope_samples(terms, gaps, "factual", 5)[7]) == pytest.approx(wanted[2])


def test_a_slope_stands_on_the_terms_whose_score_is_known() -> None:
    jobs = [Term(term=str(place), stereotype=score) for place, score in enumerate((-1, -0.5, 0.5, 1))]
    meant = [Term(term="mother", factual=-1), Term(term="uncle", factual=1), Term(term="aunt", factual=-1)]
    gaps = torch.tensor([-0.2, -0.1, 0.1, 0.2, -0.9, 0.9, -0.9], dtype=torch.float64)
    found = slopes([*jobs, *meant], gaps)
    assert found.stereotype is not None
    assert found.factual is not None
    assert found.stereotype.value == pytest.approx(0.2)
    assert found.factual.value == pytest.approx(0.9)
    assert found.terms == 4


def test_without_scores_there_is_no_slope() -> None:
    found = slopes([Term(term=name) for name in "abcd"], torch.tensor([0.1, 0.2, 0.3, 0.4]))
    assert (found.stereotype, found.factual) == (None, None)
    assert found.intercept == pytest.approx(0.25)
    constant = slopes([Term(term=name, stereotype=0.5) for name in "abcd"], torch.tensor([0.1, 0.2, 0.3, 0.4]))
    assert constant.stereotype is None


def test_half_the_differences_are_half_the_slope_in_every_resample() -> None:
    terms, gaps = scored(4)
    found = slope_ratio(terms, gaps, gaps / 2, "stereotype")
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="4 terms tell no factual slope: give at least three terms whose factual scores"):
        slope_ratio([Term(term=name, stereotype=1) for name in "abcd"], gaps[:4], gaps[:4], "factual")


def test_templates_that_disagree_do_not_cancel() -> None:
    found = mean_absolute(torch.tensor([[0.5, -0.5], [0.1, -0.3]], dtype=torch.float64))
    assert found.value == pytest.approx(0.35)
    assert 0.2 <= found.low <= found.value <= found.high <= 0.5


def test_a_broken_models_numbers_stay_broken() -> None:
    terms, gaps = scored(6)
    assert not math.isfinite(mean_absolute(gaps * math.nan).value)
    assert slopes(terms, gaps * math.nan).stereotype is None
