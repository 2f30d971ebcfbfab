"""One model, alone in memory, is asked for the group after every term of every request; what is kept are numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from editors.contract import Progress, silent
from editors.debias_request import DebiasRequest
from editors.digest import digest_document
from editors.loading import LoadedModel
from validations.bias.asked import SCORES, Grid, Score, grids, tells_slope
from validations.bias.examination import requests_digest, settings_digest
from validations.bias.pairs import PairScore, pair_scores
from validations.bias.settings import BiasSettings
from validations.bias.slopes import Groups, group_probabilities, slopes
from validations.examination import Examination, Finding


def examine(model: LoadedModel, requests: Sequence[DebiasRequest], settings: BiasSettings | None = None, *,
            progress: Progress = silent) -> Examination:
    """Everything the model shows of the requests' groups; the model is unchanged.

    Args:
        model: The parent, or the candidate as re-read from disk.
        requests: To debias.
        settings: How much is tried.
        progress: Called as requests are asked.
    """
    chosen = settings or BiasSettings()
    findings: list[Finding] = []
    for done, request in enumerate(requests):
        progress("groups", done, len(requests))
        for grid in grids(request):
            names = [term.term for term in grid.everything]
            groups = group_probabilities(model, grid.templates, names, request.groups)
            findings += grid_findings(request, grid, groups, chosen.seed)
        findings += pair_findings(request, pair_scores(model, request.pairs))
    progress("groups", len(requests), len(requests))
    return Examination(model_digest=model.digest, requests_digest=requests_digest(requests),
                       settings_digest=settings_digest(chosen), findings=tuple(findings))


def grid_findings(request: DebiasRequest, grid: Grid, groups: Groups, seed: int = 0) -> Iterator[Finding]:
    """What the terms of one grid show. Each probe's name ends with the grid's suffix.

    `stereotype.slope` and `factual.slope`, their ends `_low` and `_high`, and `.steepness`, the slope's size: one that is
    turned around is as steep. `gap.absolute` of each term, the mean of |P(first) - P(second)| over templates, and
    `leaning.absolute`, its mean over terms. `definitional.log_odds` of each term with a group by meaning, of its own group
    against the other, mean over templates, and `definitional.holds`, 1 where that is above 0. `mass.groups`, the mean of
    P(first) + P(second), and `mass.log_groups`, the mean of its logarithm.
    """
    everything = f"{len(grid.everything)} terms in {len(grid.templates)} templates"
    count = len(grid.everything) * len(grid.templates)

    def row(probe: str, metric: str, prompt: str, value: float, n: int) -> Finding:
        named = f"{probe}{grid.suffix}"
        return Finding(request=request.id, probe=named, metric=f"{named}.{metric}", prompt=prompt, value=value, n=n)

    for score in SCORES:
        for metric, value in _slope(grid, groups, score, seed):
            yield row(score, metric, everything, value, count)
    sizes = groups.gaps[:len(grid.terms)].abs().mean(-1).tolist()
    for term, size in zip(grid.terms, sizes, strict=True):
        yield row("gap", "absolute", digest_document(term.term), size, len(grid.templates))
    yield row("leaning", "absolute", everything, math.fsum(sizes) / len(sizes), len(sizes) * len(grid.templates))
    odds = groups.log_odds.mean(-1).tolist()
    for place in grid.with_group:
        term = grid.everything[place]
        own = math.copysign(1, term.factual or 0) * odds[place]
        for metric, value in (("log_odds", own), ("holds", math.nan if math.isnan(own) else float(own > 0))):
            yield row("definitional", metric, digest_document(term.term), value, len(grid.templates))
    yield row("mass", "groups", everything, float(groups.masses.mean()), count)
    yield row("mass", "log_groups", everything, float(groups.masses.log().mean()), count)


def pair_findings(request: DebiasRequest, scores: Sequence[PairScore]) -> Iterator[Finding]:
    """What sentences show.

    `pairs.preference` of each pair, 1 where the stereotype is likelier, and `pairs.log_prob`, the mean of both sentences
    in nats a token; `pairs_unrelated.meaningful`, share of the two that are likelier a token than the one without sense;
    `pairs_gap.absolute` of the request, the mean of |log P(stereotype) - log P(opposite)|.
    """
    def row(probe: str, metric: str, prompt: str, value: float, n: int = 1) -> Finding:
        return Finding(request=request.id, probe=probe, metric=f"{probe}.{metric}", prompt=prompt, value=value, n=n)

    for pair, score in zip(request.pairs, scores, strict=True):
        name = digest_document([pair.stereotype, pair.opposite])
        both = score.stereotype.mean, score.opposite.mean
        preferred = math.nan if math.isnan(score.gap) else float(score.gap > 0) + float(score.gap == 0) / 2
        yield row("pairs", "preference", name, preferred)
        yield row("pairs", "log_prob", name, sum(both) / 2, score.stereotype.tokens + score.opposite.tokens)
        if score.unrelated is not None:
            none = score.unrelated.mean
            likelier = math.nan if math.isnan(sum(both) + none) else sum(one > none for one in both) / 2
            yield row("pairs_unrelated", "meaningful", name, likelier, 2)
    if scores:
        yield row("pairs_gap", "absolute", f"{len(scores)} pairs", sum(abs(score.gap) for score in scores) / len(scores),
                  len(scores))


def _slope(grid: Grid, groups: Groups, score: Score, seed: int) -> Iterator[tuple[str, float]]:
    """Metric and value; NaN where the scores tell a slope and the model's numbers are none."""
    if not tells_slope(grid.everything, score):
        return
    found = slopes(grid.everything, groups.gaps, seed)
    told = found.stereotype if score == "stereotype" else found.factual
    value, low, high = (math.nan,) * 3 if told is None else (told.value, told.low, told.high)
    yield "slope", value
    yield "steepness", abs(value)
    yield "slope_low", low
    yield "slope_high", high
