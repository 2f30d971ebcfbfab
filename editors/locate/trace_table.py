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


@dataclass(frozen=True)
class Cell:
    """One restored token and layer of one request."""

    request: str
    kind: Kind
    position: int
    token: str
    role: str
    layer: int
    indirect_effect: float
    clean_probability: float
    corrupted_probability: float
    answer: str


@dataclass(frozen=True)
class RoleMean:
    """Mean indirect effect over requests, with a 95% bootstrap interval over requests.

    With one request there is no interval: `low` and `high` are None.
    """

    kind: Kind
    role: str
    layer: int
    mean: float
    low: float | None
    high: float | None
    requests_traced: int
    requests_in_batch: int


def cells(result: TraceResult) -> tuple[Cell, ...]:
    """Every cell of every traced request, in the order request, kind, token, layer."""
    return tuple(
        Cell(traced.prompt.request, kind, position, traced.tokens[row], traced.prompt.role(position), layer,
             round(float(effects[row, column]), 6), round(traced.clean, 6), round(traced.corrupted, 6), traced.answer)
        for traced in result.traces for kind, effects in traced.effects.items()
        for row, position in enumerate(traced.prompt.positions) for column, layer in enumerate(result.layers))


def role_means(result: TraceResult) -> tuple[RoleMean, ...]:
    """The mean of each kind, role and layer; a role that no traced prompt has is left out."""
    means: list[RoleMean] = []
    for kind in result.config.kinds:
        for role in ROLES:
            curves = [curve for traced in result.traces if (curve := _role_curve(traced, kind, role)) is not None]
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


def _role_curve(traced: RequestTrace, kind: Kind, role: str) -> np.ndarray | None:
    """Mean over the request's tokens of that role: (layers,)."""
    rows = [row for row, position in enumerate(traced.prompt.positions) if traced.prompt.role(position) == role]
    return traced.effects[kind][rows].double().mean(0).numpy() if rows else None


def _summarised(kind: Kind, role: str, curves: np.ndarray, result: TraceResult) -> Iterable[RoleMean]:
    """`curves`: (requests, layers)."""
    count = len(curves)
    draws = np.random.default_rng(result.config.seed).integers(count, size=(RESAMPLES, count))
    low, high = np.percentile(curves[draws].mean(1), [2.5, 97.5], axis=0)
    for column, layer in enumerate(result.layers):
        lower, upper = (round(float(bound[column]), 6) if count > 1 else None for bound in (low, high))
        yield RoleMean(kind, role, layer, round(float(curves[:, column].mean()), 6), lower, upper, count, result.batch_size)
