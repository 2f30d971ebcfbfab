"""A sweep as a picture: a row a method, a panel a stage, the shares and the score over what was tried."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tasks.calibrate import Swept, Trial

STYLES = {  # Okabe and Ito's colours, told apart by dash and marker as well
    "success": ("#0072B2", "--", "s"), "paraphrase": ("#E69F00", ":", "v"), "neighbourhood": ("#56B4E9", "-.", "^"),
    "score": ("#D55E00", "-", "o")}


def draw(methods: Sequence[Swept], path: Path) -> None:
    """Write the picture as PNG. The same sweep gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    stages = [list(dict.fromkeys(trial.stage for trial in swept.trials)) for swept in methods]
    columns = max(len(names) for names in stages)
    figure = Figure(figsize=(1.0 + 4.2 * columns, 0.8 + 3.2 * len(methods)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(methods), columns, squeeze=False, sharey=True)
    for row, swept in enumerate(methods):
        for column in range(columns):
            if column < len(stages[row]):
                _panel(panels[row][column], swept, stages[row][column])
            else:
                panels[row][column].set_axis_off()
        panels[row][0].set_ylabel("share, score", fontsize=9)
    panels[0][0].legend(fontsize=8, frameon=False, loc="lower right")
    figure.suptitle("Counterfactual edits of known facts. Under each setting the change of perplexity on held-out text; "
                    "grey: the best of all.", fontsize=10, x=0.01, ha="left")
    figure.savefig(path, format="png", dpi=130, metadata={"Software": None})


def shown(swept: Swept, stage: str) -> list[Trial]:
    """A stage's trials and the one it began from, in the order of what was varied."""
    first = next(place for place, trial in enumerate(swept.trials) if trial.stage == stage)
    began = max(swept.trials[:first], key=lambda trial: trial.score, default=None)
    found = [trial for trial in swept.trials if trial.stage == stage]
    if stage == "layers":
        return sorted(found, key=lambda trial: (trial.layers, trial.score))
    if began is not None and stage in began.options:
        found.append(began)
    return sorted(found, key=lambda trial: trial.options[stage])


def _panel(axes: Axes, swept: Swept, stage: str) -> None:
    trials = shown(swept, stage)
    for name, (colour, dash, marker) in STYLES.items():
        values = [trial.score if name == "score" else getattr(trial.marks, name) for trial in trials]
        axes.plot(range(len(trials)), values, color=colour, linestyle=dash, marker=marker, markersize=4, label=name,
                  linewidth=2 if name == "score" else 1.2)
    if swept.best in trials:
        place = trials.index(swept.best)
        axes.axvspan(place - 0.4, place + 0.4, color="#DDDDDD", linewidth=0, zorder=0)
    labels = [f"{_setting(trial, stage)}\n{100 * (trial.marks.perplexity_ratio - 1):+.1f}%" for trial in trials]
    axes.set_xticks(range(len(trials)), labels, fontsize=8)
    axes.set_xlim(-0.6, max(len(trials) - 0.4, 0.6))
    axes.set_title(f"{swept.method}: {stage}", fontsize=10)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _setting(trial: Trial, stage: str) -> Any:
    layers = trial.layers
    return trial.options.get(stage) if stage != "layers" else f"{layers[0]}-{layers[-1]}" if layers[1:] else layers[0]
