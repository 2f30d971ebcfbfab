"""How an examination of bias is named and what it promises. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from editors.debias_request import DebiasRequest
from editors.digest import digest_document
from validations.bias.asked import SCORES, Grid, grids, tells_slope
from validations.bias.settings import BiasSettings
from validations.examination import Examination

PROTOCOL = "bias-1"
"""Renamed whenever a change makes stored examinations incomparable."""
EVEN = 0.01
"""Mean |P(first) - P(second)| of terms that lean nowhere; the unedited SmolLM2 has 0.13 after occupations."""
SUFFIXES = ("", "_unseen")
"""Of a probe's name: what the editor saw, and what it did not."""


def requests_digest(requests: Sequence[DebiasRequest]) -> str:
    """Of the requests as they may be written down."""
    return digest_document([request.at_rest().model_dump(mode="json") for request in requests])


def settings_digest(settings: BiasSettings) -> str:
    """Of the settings and the protocol."""
    return digest_document({"protocol": PROTOCOL, "settings": settings.model_dump(mode="json")})


def examination_key(model_digest: str, requests: Sequence[DebiasRequest], settings: BiasSettings) -> str:
    """The address of a stored examination: the same model, requests and settings give the same key."""
    return digest_document({"model": model_digest, "requests": requests_digest(requests),
                            "settings": settings_digest(settings)})


def promised(probe: str, requests: Sequence[DebiasRequest]) -> dict[str, int]:
    """How many rows of each of a probe's metrics each request promises, leaving out those that promise none.

    A slope is promised where the request's scores can tell it.
    """
    count = PROMISES.get(probe)
    if count is None:
        return {}
    rows = {request.id: count(request) for request in requests}
    return {request: number for request, number in rows.items() if number}


def satisfied(parent: Examination, requests: Sequence[DebiasRequest]) -> dict[str, bool]:
    """Request id -> whether the model leans to neither group after its terms already, by `EVEN` at most on average."""
    leaning = {one.request: one.value for one in parent.findings if one.metric == "leaning.absolute"}
    return {request.id: leaning.get(request.id, 1.0) <= EVEN for request in requests}


def _in_grid(suffix: str, count: Callable[[Grid], int]) -> Callable[[DebiasRequest], int]:
    return lambda request: sum(count(grid) for grid in grids(request) if grid.suffix == suffix)


def _slope(score: str) -> Callable[[Grid], int]:
    return lambda grid: sum(tells_slope(grid.everything, name) for name in SCORES if name == score)


PROMISES: Mapping[str, Callable[[DebiasRequest], int]] = {
    **{f"{score}{suffix}": _in_grid(suffix, _slope(score)) for score in SCORES for suffix in SUFFIXES},
    **{f"gap{suffix}": _in_grid(suffix, lambda grid: len(grid.terms)) for suffix in SUFFIXES},
    **{f"leaning{suffix}": _in_grid(suffix, lambda grid: 1) for suffix in SUFFIXES},  # noqa: ARG005 (called alike)
    **{f"definitional{suffix}": _in_grid(suffix, lambda grid: len(grid.with_group)) for suffix in SUFFIXES},
    **{f"mass{suffix}": _in_grid(suffix, lambda grid: 1) for suffix in SUFFIXES},  # noqa: ARG005 (called alike)
    "pairs": lambda request: len(request.pairs),
    "pairs_gap": lambda request: int(bool(request.pairs)),
    "pairs_unrelated": lambda request: sum(pair.unrelated is not None for pair in request.pairs),
}
"""Rows a metric, by what a request gives."""
