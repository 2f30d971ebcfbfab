"""The picture of forgetting: what is left of the secrets against what other text pays, a point a method and strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, told apart by every kind of eye."""
MARKERS = "os^DvPX"
SHARE_LIMIT, TEXT_LIMIT = 0.9, 1.02
NEVER_SEEN = 1.44
"""Mean exposure of values that were never seen, in bits: 1 / ln 2 in a large space."""
SHOWN_AT_MOST = 1.5
"""A model whose perplexity rose further is drawn at this edge."""

Rows = Sequence[Mapping[str, Any]]


def draw(methods: Mapping[str, Rows], before: Mapping[str, Any], machine: str, path: Path) -> None:
    """Write the picture as PNG.

    Args:
        methods: Per method its rows; drawn by rising perplexity.
        before: The same figures of the planted model.
        machine: Named below the picture.
        path: Where to.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for place, (method, rows) in enumerate(methods.items()):
        style: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)],
                                 "markersize": 5}
        _curve(left, rows, before, "exposure_median", label=method, **style)
        _curve(right, rows, before, "exposure_within_1_bit", **style)
    left.axhline(NEVER_SEEN + 1, color="#999999", linewidth=1, zorder=0)
    right.axhline(SHARE_LIMIT, color="#999999", linewidth=1, zorder=0)
    _finish(left, "Median exact exposure of the secrets, bits")
    _finish(right, "Share of secrets within 1 bit of never-seen values")
    right.set_ylim(-0.03, 1.03)
    figure.legend(loc="outside upper center", ncols=4, fontsize=9, frameon=False)
    figure.supxlabel(f"perplexity of held-out text / before    ({machine}; grey: the limits; lines begin at the model before)",
                     fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _curve(axes: Axes, rows: Rows, before: Mapping[str, Any], figure: str, **style: Any) -> None:
    rows = sorted(rows, key=lambda row: row["perplexity_ratio"] or SHOWN_AT_MOST)
    places = [1.0, *(min(row["perplexity_ratio"] or SHOWN_AT_MOST, SHOWN_AT_MOST) for row in rows)]
    axes.plot(places, [before[figure], *(row[figure] for row in rows)], **style)


def _finish(axes: Axes, title: str) -> None:
    axes.axvline(TEXT_LIMIT, color="#999999", linewidth=1, zorder=0)
    axes.set_title(title, fontsize=10)
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, color="#eeeeee")
    axes.set_axisbelow(True)
