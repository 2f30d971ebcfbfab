"""The picture of a stream of edits: what is kept of all past edits, of the neighbours, of plain text, and of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.targets import TARGETS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, told apart by every kind of eye."""
LIMITS = {target.figure: target.limit for target in TARGETS}

Points = Sequence[Mapping[str, Any]]


def draw(arms: Mapping[str, Points], machine: str, path: Path) -> None:
    """Write the picture as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    (learnt, near), (text, weights) = figure.subplots(2, 2)
    colours = _colours(arms)
    edits = sorted({point["edits"] for points in arms.values() for point in points})
    for name, points in arms.items():
        style: dict[str, Any] = {"color": colours[name], "marker": "o" if ", " not in name else "^", "markersize": 4}
        _curve(learnt, points, "success", label=name, **style)
        _curve(learnt, points, "teacher_forced", linestyle="--", **style)
        _curve(near, points, "neighbourhood_drop", **style)
        _curve(text, points, "perplexity_ratio", **style)
        _series(weights, points, lambda point: max(point["update_norms"].values(), default=math.nan), **style)
    _finish(learnt, "All edits so far: success (solid), teacher-forced accuracy (dashed)", ("success", "teacher_forced"), edits)
    _finish(near, "Neighbourhood success lost against the unedited model", ("neighbourhood_drop",), edits)
    _finish(text, "Perplexity of held-out text / the unedited model's", ("perplexity_ratio",), edits)
    _finish(weights, "Largest relative change of a layer, |W - W0| / |W0|", (), edits)
    learnt.set_ylim(-0.03, 1.03)
    if max((point["perplexity_ratio"] or math.inf for points in arms.values() for point in points), default=1) > 2:
        text.set_yscale("log")
    figure.legend(loc="outside upper center", ncols=min(4, max(1, len(arms))), fontsize=9, frameon=False)
    figure.supxlabel(f"edits so far, one after another    ({machine}; grey: the limits at the last point)", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _colours(arms: Mapping[str, Points]) -> dict[str, str]:
    """One colour a method, however many edits it is given at a time."""
    methods = list(dict.fromkeys(name.partition(",")[0] for name in arms))
    return {name: COLOURS[methods.index(name.partition(",")[0]) % len(COLOURS)] for name in arms}


def _curve(axes: Axes, points: Points, figure: str, **style: Any) -> None:
    _series(axes, points, lambda point: math.nan if point[figure] is None else point[figure], **style)


def _series(axes: Axes, points: Points, value: Callable[[Mapping[str, Any]], float], **style: Any) -> None:
    axes.plot([point["edits"] for point in points], [value(point) for point in points], **style)


def _finish(axes: Axes, title: str, figures: Sequence[str], edits: Sequence[int]) -> None:
    for figure in figures:
        dash = "--" if figure == "teacher_forced" else "-"
        axes.axhline(LIMITS[figure], color="#999999", linewidth=1, linestyle=dash, zorder=0)
    axes.set_xscale("log")
    axes.set_xticks(edits, [str(count) for count in edits], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_title(title, fontsize=10)
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, color="#eeeeee")
    axes.set_axisbelow(True)
