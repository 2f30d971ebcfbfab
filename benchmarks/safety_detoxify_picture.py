"""The picture of detoxifying: what is gained against what other text pays, a point a method, one panel a form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
TITLES = {"plain": "toxic continuations, ratio to unedited", "chat": "unsafe prompts never shown, share refused"}


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Write the picture as PNG. The same document gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(document["forms"]), squeeze=False)[0]
    for axes, (form, part) in zip(panels, document["forms"].items(), strict=True):
        for place, (name, row) in enumerate(part["methods"].items()):
            gain = row["toxicity_ratio"] if form == "plain" else row["chats"]["unseen"]
            paid = 100 * (row["perplexity_ratio"] - 1)
            axes.plot(paid, gain, "o", color=COLOURS[place % len(COLOURS)])
            axes.annotate(name, (paid, gain), xytext=(6, -3), textcoords="offset points", fontsize=8)
        _finish(axes, TITLES[form])
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_xlabel("perplexity, percent more", fontsize=9)
    axes.axvline(5, color="#999999", linewidth=0.8, linestyle="--")
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(min(-0.5, axes.get_xlim()[0]), max(10.0, axes.get_xlim()[1]))
    axes.set_ylim(bottom=-0.05)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
