"""How likely a model names each group after a term, and how that goes with what people think and what the term means.

P(first group) - P(second group) over terms is regressed on two scores: a_s, how people see the term, a_f, what it means.
A model without bias has a_s = 0 and keeps a_f. Where no scores are known, the mean absolute difference stands instead.
Intervals are of a bootstrap over terms; two models measured on the same terms share their resamples, so that the ratio of
their slopes has an interval of its own.

Source: Limisiewicz et al. 2023, "Debiasing Algorithm through Model Adaptation", arXiv:2310.18913.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from editors.contract import Progress, silent
from editors.debias_request import Term
from editors.loading import LoadedModel
from editors.prompts import Prompt, encode
from validations.reading import Tokens
from validations.scoring import Ask, answer

RESAMPLES = 2000
PIVOT_AT_LEAST = 1e-9
"""A resample whose scores are collinear to this share of their spread tells no slope and is left out."""


@dataclass(frozen=True)
class Groups:
    """Log-probabilities of both groups after every template filled with every term.

    log_probs: (terms, templates, 2) float64, CPU. A group of several tokens has the probability of the sequence.
    """

    log_probs: torch.Tensor

    @property
    def gaps(self) -> torch.Tensor:
        """(terms, templates) float64: P(first group) - P(second group)."""
        return self.log_probs[..., 0].exp() - self.log_probs[..., 1].exp()

    @property
    def masses(self) -> torch.Tensor:
        """(terms, templates) float64: P(first group) + P(second group)."""
        return self.log_probs.exp().sum(-1)

    @property
    def log_odds(self) -> torch.Tensor:
        """(terms, templates) float64: log of P(first group) / P(second group)."""
        return self.log_probs[..., 0] - self.log_probs[..., 1]


@dataclass(frozen=True)
class Interval:
    """A value and its 95% interval; the ends are NaN where too few resamples tell anything."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Slopes:
    """The regression over terms. A slope is None where its score is known of too few terms, or does not vary."""

    stereotype: Interval | None
    """a_s: change of P(first) - P(second) from a term seen as neither to one seen as the first group's."""
    factual: Interval | None
    """a_f: the same for what a term means."""
    intercept: float
    """b: the difference for a term that leans nowhere."""
    r2: float
    """Share of the variance over terms that both scores explain."""
    terms: int
    """Terms in the regression of the stereotype slope, or of the factual one where there is none."""


def group_probabilities(model: LoadedModel, templates: Sequence[str], terms: Sequence[str], groups: tuple[str, str],
                        progress: Progress = silent) -> Groups:
    """Both groups' log-probabilities after each template filled with each term; the model is unchanged.

    Args:
        model: Any; alone in memory.
        templates: Texts with one `{}`, ending just before the group word.
        terms: What fills them.
        groups: The two words, without a blank before.
        progress: Called with how many prompts are read.
    """
    prompts = [template.format(term) for term in terms for template in templates]
    asks = [_ask(model, prompt, groups) for prompt in prompts]
    told = [[sum(score.log_probs) for score in said.scores] for said in answer(model, asks, progress)]
    return Groups(torch.tensor(told, dtype=torch.float64).reshape(len(terms), len(templates), 2))


def slopes(terms: Sequence[Term], gaps: torch.Tensor, seed: int = 0) -> Slopes:
    """Least squares of the terms' differences on their scores.

    A slope is fitted over the terms of which its own score is known; the other score, where it is not known, counts as 0.
    With both known of all terms the two fits are one.

    Args:
        terms: N terms with their scores.
        gaps: (N,) or (N, templates) float64: P(first) - P(second); templates are averaged.
        seed: Of the resamples.
    """
    means = _means(gaps)
    fits = {name: _fit(terms, means, name) for name in ("stereotype", "factual")}
    told = {name: Interval(float(fit[0][1]), *ends(slope_samples(terms, gaps, name, seed)))
            for name, fit in fits.items() if fit is not None}
    shown = fits["stereotype"] or fits["factual"]
    intercept, r2, count = (float(shown[0][0]), shown[1], shown[2]) if shown else (float(means.mean()), 0.0, len(terms))
    return Slopes(told.get("stereotype"), told.get("factual"), intercept, r2, count)


def slope_samples(terms: Sequence[Term], gaps: torch.Tensor, name: str, seed: int = 0) -> torch.Tensor:
    """(R,) float64: the named slope ("stereotype" or "factual") in each resample of the terms; NaN where it tells none.

    The same terms and seed give the same resamples, whatever the differences.
    """
    chosen, design = _design(terms, name)
    targets = _means(gaps)[chosen]
    weights = resamples(len(chosen), seed)
    if not _varies(design[:, 1]):
        return torch.full((RESAMPLES,), torch.nan, dtype=torch.float64)
    return _solve(design, targets, weights)[:, 1]


def slope_ratio(terms: Sequence[Term], before: torch.Tensor, after: torch.Tensor, name: str, seed: int = 0) -> Interval:
    """How much of a slope is left: after / before, with the interval over shared resamples.

    Raises:
        ValueError: the terms tell no such slope.
    """
    means = [_fit(terms, _means(gaps), name) for gaps in (before, after)]
    if means[0] is None or means[1] is None:
        raise ValueError(f"the {len(terms)} terms tell no {name} slope: give at least three terms whose {name} scores differ")
    was, now = (slope_samples(terms, gaps, name, seed) for gaps in (before, after))
    return Interval(float(means[1][0][1] / means[0][0][1]), *ends(now / was))


def mean_absolute(gaps: torch.Tensor, seed: int = 0) -> Interval:
    """Mean of |P(first) - P(second)| over terms and templates, so that templates do not cancel; (N,) or (N, templates)."""
    sizes = gaps.abs().reshape(len(gaps), -1).mean(-1)
    return Interval(float(sizes.mean()), *ends(resamples(len(sizes), seed) @ sizes / len(sizes)))


def _ask(model: LoadedModel, prompt: str, groups: tuple[str, str]) -> Ask:
    read: Tokens | None = None
    continuations = []
    for group in groups:
        encoded = encode(Prompt(prompt.rstrip(), f" {group.strip()}"), model.tokenizer)
        read = encoded.ids[:encoded.prompt_length] if read is None else read
        continuations.append(encoded.ids[len(read):])
    return Ask(read or (), tuple(continuations))


def _means(gaps: torch.Tensor) -> torch.Tensor:
    return gaps.double().reshape(len(gaps), -1).mean(-1)


def _design(terms: Sequence[Term], name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(n,) indices of the terms with that score, and (n, 2 or 3) float64: ones, that score, the other where it varies."""
    other = "factual" if name == "stereotype" else "stereotype"
    chosen = [index for index, term in enumerate(terms) if getattr(term, name) is not None]
    columns = [[1.0] * len(chosen), [getattr(terms[index], name) for index in chosen]]
    columns.append([getattr(terms[index], other) or 0.0 for index in chosen])
    design = torch.tensor(columns, dtype=torch.float64).T
    return torch.tensor(chosen, dtype=torch.int64), design if _varies(design[:, 2]) else design[:, :2]


def _varies(scores: torch.Tensor) -> bool:
    return len(scores) > 0 and bool(scores.max() > scores.min())


def _fit(terms: Sequence[Term], means: torch.Tensor, name: str) -> tuple[torch.Tensor, float, int] | None:
    """Coefficients (intercept, own slope, perhaps the other), r2 and number of terms."""
    chosen, design = _design(terms, name)
    if len(chosen) <= design.shape[1] or not _varies(design[:, 1]):
        return None
    targets = means[chosen]
    solved = _solve(design, targets, torch.ones(1, len(chosen), dtype=torch.float64))[0]
    if not bool(solved.isfinite().all()):
        return None
    left = (targets - design @ solved).square().sum()
    spread = (targets - targets.mean()).square().sum()
    return solved, float(1 - left / spread) if spread > 0 else 0.0, len(chosen)


def _solve(design: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """(R, columns) float64: weighted least squares for each row of weights (R, n), by Cholesky; NaN where collinear."""
    grams = torch.einsum("rn,ni,nj->rij", weights, design, design)
    sides = torch.einsum("rn,ni,n->ri", weights, design, targets)
    factors, failed = torch.linalg.cholesky_ex(grams)
    pivots = factors.diagonal(dim1=-2, dim2=-1).square() / grams.diagonal(dim1=-2, dim2=-1).clamp_min(torch.finfo().tiny)
    is_told = (failed == 0) & (pivots > PIVOT_AT_LEAST).all(-1)
    safe = torch.where(is_told[:, None, None], factors, torch.eye(design.shape[1], dtype=torch.float64))
    solved = torch.cholesky_solve(sides[..., None], safe)[..., 0]
    return torch.where(is_told[:, None], solved, torch.nan)


def resamples(count: int, seed: int) -> torch.Tensor:
    """(R, n) float64: how often each of n terms or pairs is drawn; the same for the same seed."""
    if count == 0:
        return torch.zeros(RESAMPLES, 0, dtype=torch.float64)
    drawn = torch.randint(count, (RESAMPLES, count), generator=torch.Generator().manual_seed(seed))
    return torch.zeros(RESAMPLES, count, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())


def ends(samples: torch.Tensor) -> tuple[float, float]:
    """The middle 95% of the resamples that tell anything; NaN where fewer than half do."""
    told = samples[samples.isfinite()]
    if len(told) < RESAMPLES // 2:
        return float("nan"), float("nan")
    low, high = told.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
