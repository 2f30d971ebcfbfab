"""The numbers of a trace as tables: every cell, and the mean over requests for each token role and layer."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np

from editors.locate.causal_trace import ROLES, RequestTrace, TraceResult
from editors.locate.replay import Kind

RESAMPLES = 1000
CONTROLLED = ("control, subject last", "control, prompt last")
"""Roles of the control: a random state at the paper's two sites."""


@dataclass(frozen=True)
class Cell:
    """One restored token and layer of one request, with a 95% bootstrap interval over the noise draws.

    With one draw there is no interval: `low` and `high` are None.
    """

    request: str
    kind: Kind
    position: int
    token: str
    role: str
    layer: int
    indirect_effect: float
    low: float | None
    high: float | None
    noise_draws: int
    clean_probability: float
    corrupted_probability: float
    answer: str


@dataclass(frozen=True)
class RoleMean:
    """Mean indirect effect over requests, with a 95% bootstrap interval over requests and over the noise draws of each.

    With one request and one draw there is no interval: `low` and `high` are None. A role that begins with "control" tells
    of a random state in the place of the clean one.
    """

    kind: Kind
    role: str
    layer: int
    mean: float
    low: float | None
    high: float | None
    requests_traced: int
    requests_in_batch: int
    noise_draws: int


def cells(result: TraceResult) -> tuple[Cell, ...]:
    """Every cell of every traced request, in the order request, kind, token, layer."""
    return tuple(cell for traced in result.traces for kind in traced.draws for cell in _cells(result, traced, kind))


def role_means(result: TraceResult) -> tuple[RoleMean, ...]:
    """The mean of each kind, role and layer, the control's after the others; a role that no traced prompt has is left out."""
    means: list[RoleMean] = []
    for kind in result.config.kinds:
        for role in (*ROLES, *CONTROLLED):
            curves = [curve for traced in result.traces if (curve := _role_curves(traced, kind, role)) is not None]
            if curves:
                means.extend(_summarised(kind, role, np.stack(curves), result))
    return tuple(means)


def traced_peak(result: TraceResult) -> int | None:
    """The layer of the largest mean effect at the subject's last token; None where nothing recovers anything.

    Of the feed-forward window where that was traced (it is what the closed-form editors change), else of the state.
    """
    kind = "mlp" if "mlp" in result.config.kinds else result.config.kinds[0]
    curve = [mean for mean in role_means(result) if mean.kind == kind and mean.role == "subject last"]
    best = max(curve, key=lambda mean: mean.mean, default=None)
    return best.layer if best is not None and best.mean > 0 else None


def as_csv(rows: Sequence[Cell] | Sequence[RoleMean]) -> str:
    """The rows as CSV text with a header; an absent value is an empty field."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(field.name for field in fields(rows[0]))
    writer.writerows(astuple(row) for row in rows)
    return stream.getvalue()


def _cells(result: TraceResult, traced: RequestTrace, kind: Kind) -> Iterable[Cell]:
    draws = traced.draws[kind].double().numpy()
    count = draws.shape[-1]
    chosen = np.random.default_rng(result.config.seed).integers(count, size=(RESAMPLES, count))
    low, high = np.percentile(draws[..., chosen].mean(-1), [2.5, 97.5], axis=-1)
    for row, position in enumerate(traced.prompt.positions_of(kind)):
        token = traced.tokens[traced.prompt.positions.index(position)]
        for column, layer in enumerate(result.layers):
            lower, upper = (round(float(bound[row, column]), 6) if count > 1 else None for bound in (low, high))
            yield Cell(traced.prompt.request, kind, position, token, traced.prompt.role(position), layer,
                       round(float(draws[row, column].mean()), 6), lower, upper, count, round(traced.clean, 6),
                       round(traced.corrupted, 6), traced.answer)


def _role_curves(traced: RequestTrace, kind: Kind, role: str) -> np.ndarray | None:
    """Mean over the request's tokens of that role, for each noise draw: (layers, S)."""
    is_control = role in CONTROLLED
    draws = (traced.control if is_control else traced.draws).get(kind)
    if draws is None:
        return None
    positions = traced.prompt.sites if is_control else traced.prompt.positions_of(kind)
    wanted = role.removeprefix("control, ")
    rows = [row for row, position in enumerate(positions) if traced.prompt.role(position) == wanted]
    return draws[rows].double().mean(0).numpy() if rows else None


def _summarised(kind: Kind, role: str, curves: np.ndarray, result: TraceResult) -> Iterable[RoleMean]:
    """`curves`: (requests, layers, S). A resample takes requests, and then draws of each."""
    requests, _, count = curves.shape
    generator = np.random.default_rng(result.config.seed)
    chosen = generator.integers(requests, size=(RESAMPLES, requests, 1))
    draws = generator.integers(count, size=(RESAMPLES, requests, count))
    low, high = np.percentile(curves[chosen, :, draws].mean((1, 2)), [2.5, 97.5], axis=0)
    for column, layer in enumerate(result.layers):
        lower, upper = (round(float(bound[column]), 6) if requests * count > 1 else None for bound in (low, high))
        yield RoleMean(kind, role, layer, round(float(curves[:, column].mean()), 6), lower, upper, requests,
                       result.batch_size, count)
