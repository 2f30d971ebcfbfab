"""The picture of `benchmarks.editing`: seconds and memory against the number of edits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.editing_reading import Reading


def draw(readings: Sequence[Reading], path: Path) -> None:
    """Write the picture, a PNG, to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    seconds, memory = figure.subplots(1, 2)
    names = list(dict.fromkeys(reading.method for reading in readings))
    for place, name in enumerate(names):
        own = sorted((one for one in readings if one.method == name and one.path == "engine"), key=lambda one: one.count)
        counts, color = [one.count for one in own], f"C{place}"
        seconds.plot(counts, [one.seconds for one in own], "o-", color=color, label=name)
        memory.plot(counts, [one.peak_bytes / one.model_bytes for one in own], "o-", color=color, label=name)
        slow = [one for one in readings if one.method == name and one.path == "naive"]
        if slow:
            seconds.plot([one.count for one in slow], [one.seconds for one in slow], "x", color=color, markersize=10,
                         markeredgewidth=2, label=f"{name}, naive path")
    memory.axhline(1.5, color="grey", linestyle=":", linewidth=1)
    seconds.set(xscale="log", yscale="log", xlabel="edits in one batch", ylabel="CPU seconds an edit, one thread")
    memory.set(xscale="log", xlabel="edits in one batch", ylabel="peak memory / the model's bytes")
    memory.set_ylim(bottom=0)
    for axes in (seconds, memory):
        axes.grid(alpha=0.3)
    seconds.legend(fontsize=8)
    figure.savefig(path, dpi=130)
