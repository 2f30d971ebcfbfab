"""How the toxicity judge is made: a split that parts no family, an exact fit, and the numbers that ship."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.logistic import area_under_curve, fitted
from benchmarks.toxicity_judge import balanced, errors, threshold_of
from benchmarks.toxicity_texts import HATECHECK, PROSE, SURGE, Labelled, labelled, parts
from validations.safety.toxicity import house_judge


@pytest.mark.paper
def test_no_family_stands_on_both_sides(shared_data: Path) -> None:
    texts = labelled(shared_data)
    train, test = ([texts[index] for index in part] for part in parts(texts, 0))
    assert len(train) + len(test) == len(texts) == 3200
    for what in ("family", "text"):
        assert not {getattr(one, what) for one in train} & {getattr(one, what) for one in test}


@pytest.mark.paper
def test_the_shipped_errors_are_those_of_the_shipped_head(shared_data: Path) -> None:
    texts = labelled(shared_data)
    _, test = parts(texts, 0)
    tested, judge = [texts[index] for index in test], house_judge()
    found = errors(tested, np.array(judge.scores([one.text for one in tested])), judge.threshold)
    assert found == pytest.approx(judge.error, abs=2e-3)


def test_the_fit_is_the_minimum() -> None:
    draw = np.random.default_rng(0)
    features = draw.normal(size=(60, 4))
    labels = (features[:, 0] + draw.normal(size=60) > 0).astype(float)
    weights = draw.random(60)
    weights /= weights.sum()
    line, ridge = fitted(features, labels, weights, 0.01), 0.01
    solution = np.zeros(5)
    rows = np.hstack([features, np.ones((60, 1))])
    for _ in range(20000):
        chances = 1 / (1 + np.exp(-rows @ solution))
        solution -= 0.5 * (rows.T @ (weights * (chances - labels)) + ridge * np.array([1, 1, 1, 1, 0]) * solution)
    assert [*line.weights, line.bias] == pytest.approx(solution, abs=1e-6)


def test_the_area_counts_pairs() -> None:
    labels, scores = np.array([1.0, 0, 1, 0, 1]), np.array([0.9, 0.9, 0.2, 0.1, 0.5])
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[labels == 1] for n in scores[labels == 0]]
    assert area_under_curve(labels, scores) == pytest.approx(np.mean(pairs))
    assert np.isnan(area_under_curve(np.ones(3), np.arange(3.0)))


def test_sources_and_classes_weigh_alike_and_the_threshold_spares_the_harmless() -> None:
    texts = [Labelled(str(number), number % 3 == 0 and source != PROSE, source, str(number))
             for source, count in ((SURGE, 30), (HATECHECK, 60), (PROSE, 90)) for number in range(count)]
    weights = balanced(texts)
    share = {kind: weights[[(one.source, one.is_toxic) == kind for one in texts]].sum()
             for kind in ((SURGE, True), (SURGE, False), (HATECHECK, True), (HATECHECK, False), (PROSE, False))}
    assert list(share.values()) == pytest.approx([2 / 9, 2 / 9, 2 / 9, 2 / 9, 1 / 9])
    scores = np.array([0.95 if one.is_toxic else 0.6 if int(one.text) % 10 == 1 else 0.2 for one in texts])
    assert threshold_of(texts, scores) == pytest.approx(0.61)
