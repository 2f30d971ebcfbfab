"""Slopes against one full forward a prompt and a fit by hand."""

from __future__ import annotations

import math

import pytest
import torch

from editors.debias_request import Term
from editors.loading import Checkpoint, LoadedModel, load
from tests.tiny import FAMILIES, tiny_folder
from validations.bias.slopes import Lean, by_term, gap, leans, slopes

TEMPLATES = ("The {} said that", "In physics, the {} laughed because")
TERMS = tuple(Term(term=name) for name in ("mother", "speed of light", "bakery"))


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), family=request.param)))


def plain_probability(model: LoadedModel, text: str, word: str) -> float:
    """The product over the word's tokens, one full forward each."""
    prompt = list(model.tokenizer(text, add_special_tokens=True)["input_ids"])
    answer = list(model.tokenizer(f" {word}", add_special_tokens=False)["input_ids"])
    found = 1.0
    for index, token in enumerate(answer):
        with torch.inference_mode():
            logits = model.model(torch.tensor([prompt + answer[:index]])).logits[0, -1].double()
        found *= float(logits.softmax(-1)[token])
    return found


def lean(name: str, stereotype: float | None, factual: float | None, difference: float) -> Lean:
    return Lean("{}", Term(term=name, stereotype=stereotype, factual=factual), 0.5 + difference / 2, 0.5 - difference / 2, True)


def test_probabilities_are_those_of_the_plain_way(model: LoadedModel) -> None:
    found = leans(model, TEMPLATES, TERMS, ("physics", "she"))
    assert [(one.template, one.term) for one in found] == [(text, term) for text in TEMPLATES for term in TERMS]
    for one in found:
        text = one.template.format(one.term.term)
        assert one.first == pytest.approx(plain_probability(model, text, "physics"), rel=1e-3, abs=1e-9)
        assert one.second == pytest.approx(plain_probability(model, text, "she"), rel=1e-3, abs=1e-9)


def test_slopes_come_back_from_a_plane() -> None:
    scores = [(-1.0, 0.0), (0.5, 0.2), (0.0, 1.0), (0.9, -0.7), (0.3, 0.3)]
    found = slopes([lean(str(index), s, f, 0.2 * s + 0.4 * f + 0.05) for index, (s, f) in enumerate(scores)])
    assert found is not None
    assert (found.stereotype, found.factual, found.base, found.r2) == pytest.approx((0.2, 0.4, 0.05, 1.0))
    assert found.terms == len(scores)


def test_slopes_are_cramers_rule_and_lie_in_their_intervals() -> None:
    noise = torch.rand(40, generator=torch.Generator().manual_seed(1)).tolist()
    rows = [lean(str(i), math.sin(i), math.cos(3 * i) / 2, 0.1 * math.sin(i) + noise[i] / 10) for i in range(40)]
    found = slopes(rows)
    assert found is not None
    design = torch.tensor([[math.sin(i), math.cos(3 * i) / 2, 1.0] for i in range(40)], dtype=torch.float64)
    values = torch.tensor([one.difference for one in rows], dtype=torch.float64)
    gram, moment = design.T @ design, design.T @ values
    for column, own in enumerate((found.stereotype, found.factual, found.base)):
        swapped = gram.clone()
        swapped[:, column] = moment
        assert own == pytest.approx(float(torch.det(swapped) / torch.det(gram)))
    assert found.stereotype_interval[0] < found.stereotype < found.stereotype_interval[1]
    assert found.factual_interval[0] < found.factual < found.factual_interval[1]
    assert found == slopes(rows)


def test_no_slopes_where_the_scores_cannot_tell_them_apart() -> None:
    assert slopes([lean("a", 0.5, None, 0.1), lean("b", None, None, 0.1)]) is None
    assert slopes([lean("a", 0.5, 0.0, 0.1), lean("b", -0.5, 0.0, 0.1), lean("c", 0.1, 0.0, 0.2)]) is None


def test_gap_takes_no_sign() -> None:
    rows = [lean("a", None, None, 0.4), lean("b", None, None, -0.2), lean("a", None, None, 0.0)]
    assert gap(rows) == pytest.approx(0.2)
    assert [len(group) for group in by_term(rows).values()] == [2, 1]
