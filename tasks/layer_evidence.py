"""A search for layers as evidence: tables, and a picture of what a trace says above what trial edits measured."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editors.contract import Evidence
from tasks.layer_search import BY_LAYER, BY_WINDOW, PICTURE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tasks.calibrate import Trial
    from tasks.layer_search import Sought

Z = 1.96
SHARES = {  # Okabe and Ito's colours, told apart by marker as well
    "success": ("#0072B2", "s"), "paraphrase": ("#E69F00", "v"), "neighbourhood": ("#56B4E9", "^")}


def evidence_of(found: Sought) -> tuple[Evidence, ...]:
    """What `suture locate` and the verdict page show of it."""
    about = f"{found.method}, {found.facts} trial edits of known facts"
    correlation = found.rank_correlation
    related = "" if correlation is None else f" Rank correlation of the two over the windows: {correlation:+.2f}."
    peak = max(found.effects, key=lambda effect: effect.mean, default=None)
    alt = ("Above, a line of the tracing effect over layers" + (f", greatest at layer {peak.layer}" if peak else "")
           + f"; below, a bar for each window of layers that was edited at its measured score, the best at {span(found.best)} "
           f"with {found.best.score:.3f}.{related}")
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
            intervals = (*wilson(marks.success, found.facts), *wilson(marks.paraphrase, found.paraphrases))
            yield (span(trial), int(trial == found.best), f"{trial.score:.6g}", f"{found.effect_at(trial.layers):.6g}",
                   f"{marks.success:.6g}", *(f"{edge:.4g}" for edge in intervals[:2]), f"{marks.paraphrase:.6g}",
                   *(f"{edge:.4g}" for edge in intervals[2:]), f"{marks.neighbourhood:.6g}", f"{marks.perplexity_ratio:.6g}")
    return _csv(("layers", "chosen", "score", "traced_effect", "success", "success_low", "success_high", "paraphrase",
                 "paraphrase_low", "paraphrase_high", "neighbourhood", "perplexity_ratio"), rows())


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share of `count`."""
    if not count:
        return 0.0, 1.0
    middle, scale = share + Z * Z / (2 * count), 1 + Z * Z / count
    half = Z * math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def span(trial: Trial) -> str:
    """A trial's layers in short."""
    layers = trial.layers
    return f"{layers[0]}-{layers[-1]}" if layers[1:] else str(layers[0])


def draw(found: Sought, path: Path) -> None:
    """Write the picture as PNG. The same search gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 1.5])
    _traced(above, found)
    _tried(below, found)
    for axes in (above, below):
        axes.axvspan(found.best.layers[0] - 0.45, found.best.layers[-1] + 0.45, color="#DDDDDD", linewidth=0, zorder=0)
        axes.tick_params(labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    below.set_xlabel("layer", fontsize=9)
    correlation = found.rank_correlation
    related = "" if correlation is None else f" Rank correlation over the {len(found.trials)} windows: {correlation:+.2f}."
    figure.suptitle(f"Above: a trace of {found.traced} known facts, which chooses nothing. Below: {found.facts} trial edits by "
                    f"{found.method}.{related}\nGrey: the layers chosen, {span(found.best)}, by the highest score.",
                    fontsize=9, x=0.01, ha="left")
    figure.savefig(path, format="png", dpi=130, metadata={"Software": None})


def _traced(axes: Axes, found: Sought) -> None:
    layers = [effect.layer for effect in found.effects]
    axes.plot(layers, [effect.mean for effect in found.effects], color="#000000", marker="o", markersize=3, linewidth=1.3)
    if found.effects and found.effects[0].low is not None:
        axes.fill_between(layers, [effect.low or 0.0 for effect in found.effects],
                          [effect.high or 0.0 for effect in found.effects], color="#000000", alpha=0.12, linewidth=0)
    axes.axhline(0.0, color="#BBBBBB", linewidth=0.6, zorder=0)
    axes.set_ylabel("tracing effect:\nprobability recovered", fontsize=9)


def _tried(axes: Axes, found: Sought) -> None:
    for trial in found.trials:
        first, last = trial.layers[0] - 0.35, trial.layers[-1] + 0.35
        is_best = trial == found.best
        axes.plot([first, last], [trial.score] * 2, color="#D55E00", linewidth=5 if is_best else 3, solid_capstyle="butt",
                  label="score of a window" if trial is found.trials[0] else None, zorder=2)
        axes.annotate(span(trial), (last, trial.score), fontsize=8, textcoords="offset points", xytext=(4, -3))
        for place, (name, (colour, marker)) in enumerate(SHARES.items()):
            # side by side within the window: their intervals would lie on each other
            at = first + (last - first) * (place + 1) / (len(SHARES) + 1)
            share = getattr(trial.marks, name)
            axes.plot([at], [share], color=colour, marker=marker, markersize=5, linestyle="none", zorder=3,
                      label=f"{name}, share" if trial is found.trials[0] else None)
    axes.set_ylim(-0.03, 1.05)
    axes.set_ylabel("measured on trial edits", fontsize=9)
    axes.legend(fontsize=8, frameon=False, loc="lower right")


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()
