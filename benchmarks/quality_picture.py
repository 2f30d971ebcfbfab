"""The picture of the quality table: a panel a figure, a row an editor, with its interval and the unedited model's mark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.intervals import interval, mean
from benchmarks.outcomes import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURES = {"success": "success", "paraphrase": "paraphrase", "neighbourhood": "neighbourhood",
           "teacher_forced": "teacher-forced accuracy"}
EDITED, UNEDITED = "#0072B2", "#999999"


def draw(outcomes: Sequence[Outcome], machine: str, path: Path) -> None:
    """Write the picture as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    datasets = list(dict.fromkeys(outcome.dataset for outcome in outcomes))
    rows = [[outcome for outcome in outcomes if outcome.dataset == dataset and not outcome.is_unedited] for dataset in datasets]
    figure = Figure(figsize=(12, 1.4 + sum(0.7 + 0.32 * len(row) for row in rows)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(datasets), len(FIGURES), squeeze=False, height_ratios=[0.5 + len(row) for row in rows])
    for line, dataset in zip(panels, datasets, strict=True):
        own = [outcome for outcome in outcomes if outcome.dataset == dataset]
        for axes, (figure_name, title) in zip(line, FIGURES.items(), strict=True):
            _panel(axes, own, figure_name)
            axes.set_title(f"{dataset}: {title}", fontsize=9)
            if axes is not line[0]:
                axes.set_yticklabels([])
    figure.supxlabel(f"share with 95% bootstrap interval; grey: unedited model on the same records    ({machine})", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _panel(axes: Axes, outcomes: Sequence[Outcome], name: str) -> None:
    names: list[str] = []
    beside = outcomes[0]
    for outcome in outcomes:
        if outcome.is_unedited:
            beside = outcome
            continue
        values, before = outcome.column(name), beside.column(name)
        low, high = interval(values)
        place = len(names)
        axes.plot([mean(before)], [place], "|", color=UNEDITED, markersize=14, markeredgewidth=2)
        axes.plot([low, high], [place, place], "-", color=EDITED, linewidth=2)
        axes.plot([mean(values)], [place], "o", color=EDITED, markersize=5)
        names.append(outcome.title)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(max(1, len(names)) - 0.5, -0.5)
    axes.set_xlim(-0.03, 1.03)
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, axis="x", color="#eeeeee")
    axes.set_axisbelow(True)
