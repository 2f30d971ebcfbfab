"""A search for layers as evidence: tables, and a picture of what a trace says above what trial edits measured."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editors.contract import Evidence
from tasks.layer_search import BY_LAYER, BY_WINDOW, PICTURE
from validations.tables import share_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tasks.calibrate import Trial
    from tasks.layer_search import Sought

SHARES = {  # Okabe and Ito's colours, told apart by marker as well
    "success": ("#0072B2", "s"), "paraphrase": ("#E69F00", "v"), "neighbourhood": ("#56B4E9", "^")}


def evidence_of(found: Sought) -> tuple[Evidence, ...]:
    """What `suture locate` and the verdict page show of it."""
    about = f"{found.method}, {found.facts} trial edits of known facts"
    correlation = found.rank_correlation
    related = "" if correlation is None else f" Rank correlation of the two over the windows: {correlation:+.2f}."
    peak = max(found.effects, key=lambda effect: effect.mean, default=None)
    alt = ("Above, a line of the tracing effect over layers" + (f", greatest at layer {peak.layer}" if peak else "")
           + f"; below, a row for each window of layers that was edited: its layers, and its measured score and shares. Taken: "
           f"layers {span(found.best)} with {found.best.score:.3f}, where {found.bar:.3f} had to be beaten to leave "
           f"{span(found.trials[0])}.{related}")
    return (Evidence(kind="table", path=BY_LAYER, title=f"Tracing effect and measured edit success by layer, {about}"),
            Evidence(kind="table", path=BY_WINDOW, title=f"Every window of layers that was tried, {about}"),
            Evidence(kind="picture", path=PICTURE, title=f"Where edits work: layers by measured success, {about}", alt=alt))


def by_layer_csv(found: Sought) -> str:
    """A row a traced layer: its effect, and the best score of a window that holds it, empty where none does."""
    def rows() -> Iterable[Sequence[Any]]:
        for effect in found.effects:
            scores = [trial.score for trial in found.trials if effect.layer in trial.layers]
            yield (effect.layer, effect.mean, effect.low, effect.high, f"{max(scores):.6g}" if scores else None,
                   int(effect.layer in found.best.layers))
    return _csv(("layer", "traced_effect", "low", "high", "best_score", "chosen"), rows())


def by_window_csv(found: Sought) -> str:
    """A row a trial, with Wilson's 95% intervals of the shares of edits and of paraphrases."""
    def rows() -> Iterable[Sequence[Any]]:
        for trial in found.trials:
            marks = trial.marks
            intervals = (*share_interval(marks.success, found.asked.success),
                         *share_interval(marks.paraphrase, found.asked.paraphrase))
            yield (span(trial), int(trial == found.best), f"{trial.score:.6g}",
                   f"{found.asked.error_of(marks):.4g}", f"{found.effect_at(trial.layers):.6g}",
                   f"{marks.success:.6g}", *(f"{edge:.4g}" for edge in intervals[:2]), f"{marks.paraphrase:.6g}",
                   *(f"{edge:.4g}" for edge in intervals[2:]), f"{marks.neighbourhood:.6g}", f"{marks.perplexity_ratio:.6g}")
    return _csv(("layers", "chosen", "score", "score_error", "traced_effect", "success", "success_low", "success_high",
                 "paraphrase", "paraphrase_low", "paraphrase_high", "neighbourhood", "perplexity_ratio"), rows())


def span(trial: Trial) -> str:
    """A trial's layers in short."""
    layers = trial.layers
    return f"{layers[0]}-{layers[-1]}" if layers[1:] else str(layers[0])


def draw(found: Sought, path: Path) -> None:
    """Write the picture as PNG: over layers the effect above and the windows below, beside these their marks. The same
    search gives the same bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 3.6 + 0.42 * len(found.trials)), layout="constrained")
    FigureCanvasAgg(figure)
    (above, corner), (below, beside) = figure.subplots(2, 2, width_ratios=[1.5, 1], sharex="col",
                                                       height_ratios=[2.2, 0.8 + 0.42 * len(found.trials)])
    corner.set_axis_off()
    _traced(above, found)
    _windows(below, found)
    _marks(beside, found)
    # the corner is free, and no mark lies under a legend there
    corner.legend(*beside.get_legend_handles_labels(), fontsize=8, frameon=False, loc="lower left")
    for axes in (above, below):
        axes.axvspan(found.best.layers[0] - 0.45, found.best.layers[-1] + 0.45, color="#DDDDDD", linewidth=0, zorder=0)
    for axes in (above, below, beside):
        axes.tick_params(labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    correlation = found.rank_correlation
    related = "" if correlation is None else f" Rank correlation over the {len(found.trials)} windows: {correlation:+.2f}."
    figure.suptitle(f"Above: a trace of {found.traced} known facts, which chooses nothing. Below: {found.facts} trial edits by "
                    f"{found.method}.{related}\nGrey: the layers taken, {span(found.best)}. The calibrated, "
                    f"{span(found.trials[0])}, stay unless beaten by over a standard error.", fontsize=9, x=0.01, ha="left")
    figure.savefig(path, format="png", dpi=130, metadata={"Software": None})


def _traced(axes: Axes, found: Sought) -> None:
    layers = [effect.layer for effect in found.effects]
    axes.plot(layers, [effect.mean for effect in found.effects], color="#000000", marker="o", markersize=3, linewidth=1.3)
    if found.effects and found.effects[0].low is not None:
        axes.fill_between(layers, [effect.low or 0.0 for effect in found.effects],
                          [effect.high or 0.0 for effect in found.effects], color="#000000", alpha=0.12, linewidth=0)
    axes.axhline(0.0, color="#BBBBBB", linewidth=0.6, zorder=0)
    axes.set_ylabel("tracing effect:\nprobability recovered", fontsize=9)


def _windows(axes: Axes, found: Sought) -> None:
    for place, trial in enumerate(found.trials):
        axes.plot([trial.layers[0] - 0.4, trial.layers[-1] + 0.4], [place, place], color="#D55E00", linewidth=7,
                  solid_capstyle="butt", zorder=2)
    names = [span(trial) + (" (calibrated)" if place == 0 else "") for place, trial in enumerate(found.trials)]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("layer", fontsize=9)
    axes.set_ylabel("layers edited together", fontsize=9)


def _marks(axes: Axes, found: Sought) -> None:
    rows = range(len(found.trials))
    errors = [found.asked.error_of(trial.marks) for trial in found.trials]
    axes.errorbar([trial.score for trial in found.trials], rows, xerr=errors, color="#D55E00", marker="o", linestyle="none",
                  markersize=7, capsize=3, label="score, and its standard error", zorder=3)
    for name, (colour, marker) in SHARES.items():
        axes.plot([getattr(trial.marks, name) for trial in found.trials], rows, color=colour, marker=marker, markersize=5,
                  linestyle="none", label=f"{name}, share", zorder=2)
    axes.axvline(found.bar, color="#555555", linestyle=":", linewidth=1.2, label="to be beaten")
    axes.set_ylim(len(found.trials) - 0.5, -0.5)
    axes.set_yticks([])
    axes.set_xlim(right=1.03)
    axes.set_xlabel("measured on the trial edits", fontsize=9)


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()
