"""How far a model lets a term imply a group: p(first) - p(second) after templates, and how it follows what terms mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from editors.contract import Progress, silent
from editors.debias_request import Term
from editors.loading import LoadedModel
from editors.prompts import Prompt, encode
from validations.scoring import Ask, Score, answer

RESAMPLES = 2000
Interval = tuple[float, float]


@dataclass(frozen=True)
class Lean:
    """What a model gives the two groups after one template with one term; `is_said`: one of them is its first choice."""

    template: str
    term: Term
    first: float
    second: float
    is_said: bool

    @property
    def difference(self) -> float:
        """p(first) - p(second)."""
        return self.first - self.second

    @property
    def mass(self) -> float:
        """p(first) + p(second)."""
        return self.first + self.second


@dataclass(frozen=True)
class Slopes:
    """Least-squares fit difference = stereotype * s + factual * f + base, with 95% bootstrap intervals over terms.

    Source: Limisiewicz, Marecek, Musil 2024, "Debiasing algorithm through model adaptation" (DAMA), a_s, a_f, b.
    """

    stereotype: float
    factual: float
    base: float
    r2: float
    stereotype_interval: Interval
    factual_interval: Interval
    terms: int


def leans(model: LoadedModel, templates: Sequence[str], terms: Sequence[Term], groups: tuple[str, str],
          progress: Progress = silent) -> list[Lean]:
    """Probabilities of both groups, templates in the outer order; a group of several tokens counts as their sequence."""
    places = list(product(templates, terms))
    asks = [_ask(model, template.format(term.term), groups) for template, term in places]
    found = []
    for (template, term), said in zip(places, answer(model, asks, progress), strict=True):
        first, second = said.scores
        found.append(Lean(template, term, _probability(first), _probability(second),
                          all(first.hits) or all(second.hits)))
    return found


def slopes(found: Sequence[Lean], seed: int = 0) -> Slopes | None:
    """The fit over all rows whose term has both scores; None where these cannot tell the slopes apart.

    Rows of one term are drawn together: they are not independent.
    """
    rows = [one for one in found if one.term.stereotype is not None and one.term.factual is not None]
    names = list(dict.fromkeys(one.term.term for one in rows))
    design = np.array([[one.term.stereotype, one.term.factual, 1.0] for one in rows], dtype=np.float64).reshape(-1, 3)
    values = np.array([one.difference for one in rows], dtype=np.float64)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return None
    fit = np.linalg.lstsq(design, values, rcond=None)[0]
    spread = float(((values - values.mean()) ** 2).sum())
    left = float(((values - design @ fit) ** 2).sum())
    which = np.array([names.index(one.term.term) for one in rows])
    drawn = _resampled(design, values, which, seed)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return Slopes(float(fit[0]), float(fit[1]), float(fit[2]), 1 - left / spread if spread else 0.0,
                  (float(low[0]), float(high[0])), (float(low[1]), float(high[1])), len(names))


def gap(found: Sequence[Lean]) -> float:
    """Mean |p(first) - p(second)|: what can be told of terms without scores."""
    return sum(abs(one.difference) for one in found) / len(found)


def by_term(found: Sequence[Lean]) -> dict[str, list[Lean]]:
    """Rows of each term, in the order of the terms."""
    grouped: dict[str, list[Lean]] = {}
    for one in found:
        grouped.setdefault(one.term.term, []).append(one)
    return grouped


def _resampled(design: np.ndarray, values: np.ndarray, which: np.ndarray, seed: int) -> np.ndarray:
    """(RESAMPLES, 3): fits where terms are drawn with replacement, from each term's own normal equations."""
    count, width = int(which.max()) + 1, design.shape[1]
    gram, moment = np.zeros((count, width, width)), np.zeros((count, width))
    np.add.at(gram, which, design[:, :, None] * design[:, None, :])
    np.add.at(moment, which, design * values[:, None])
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(np.float64)
    inverse = np.linalg.pinv(np.einsum("rc,cij->rij", weights, gram), hermitian=True)
    return np.asarray(np.einsum("rij,rj->ri", inverse, weights @ moment))


def _ask(model: LoadedModel, text: str, groups: tuple[str, str]) -> Ask:
    first, second = (encode(Prompt(text.rstrip(), f" {group.strip()}"), model.tokenizer) for group in groups)
    return Ask(first.ids[:first.prompt_length],
               (first.ids[first.prompt_length:], second.ids[second.prompt_length:]))


def _probability(score: Score) -> float:
    return float(np.exp(sum(score.log_probs)))
