"""The picture of debiasing: how much of the factual slope stays against how much of the stereotype slope does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, told apart by every kind of eye."""
MARKERS = "os^DvPX"
STEREOTYPE_LIMIT, FACTUAL_LIMIT, TEXT_LIMIT = 0.5, 0.9, 1.03


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Write the picture as PNG: both slopes with their intervals on the left, what text pays on the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    before = document["before"]["slopes"]
    for place, (name, row) in enumerate({"before": document["before"], **document["methods"]}.items()):
        style: dict[str, Any] = {"color": "#666666" if name == "before" else COLOURS[(place - 1) % len(COLOURS)],
                                 "marker": "*" if name == "before" else MARKERS[(place - 1) % len(MARKERS)], "markersize": 8}
        fit = row["slopes"]
        points, errors = [], []
        for slope in ("stereotype", "factual"):
            value, low, high = (fit[slope][part] / before[slope]["value"] for part in ("value", "low", "high"))
            points.append(value)
            errors.append([[max(0.0, points[-1] - low)], [max(0.0, high - points[-1])]])
        left.errorbar(points[0], points[1], xerr=errors[0], yerr=errors[1], elinewidth=0.8, label=name, linestyle="", **style)
        right.plot(points[0], row.get("perplexity_ratio", 1.0), linestyle="", **style)
    for axes, limit, label in ((left, FACTUAL_LIMIT, "factual slope / before"),
                               (right, TEXT_LIMIT, "perplexity / before")):
        axes.axhline(limit, color="#999999", linewidth=1, zorder=0)
        axes.axvline(STEREOTYPE_LIMIT, color="#999999", linewidth=1, zorder=0)
        axes.set_xlabel("stereotype slope / before", fontsize=9)
        axes.set_ylabel(label, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(visible=True, color="#eeeeee")
        axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=5, fontsize=9, frameon=False)
    figure.supxlabel(f"{document['machine']}; bars: 95% bootstrap over terms; grey: the limits", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})
