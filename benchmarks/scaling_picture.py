"""The picture of `benchmarks.scaling`: seconds by workers here, hours by GPUs in the plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.scaling_plan import Plan
from benchmarks.scaling_workers import Shared

STAGE_COLORS = {"statistics": "#999999", "search": "#0072B2", "reading": "#56B4E9", "solving": "#D55E00",
                "measuring": "#009E73"}


def draw(readings: Sequence[Shared], plans: Sequence[Plan], gpus: Sequence[int], path: Path) -> None:
    """Write the picture, a PNG, to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    here, stages, hours = figure.subplots(1, 3)
    counts = [one.workers for one in readings]
    here.plot(counts, [one.slowest_seconds for one in readings], "o-", label="measured: the slowest worker")
    here.plot(counts, [readings[0].slowest_seconds / count for count in counts], ":", color="grey", label="evenly shared")
    here.set(xlabel="workers", ylabel="CPU seconds of search and questions", title="SmolLM2-135M, here", xticks=counts)
    here.set_ylim(bottom=0)
    for place, one in enumerate(plans):
        left = 0.0
        for stage, spent in one.stages.items():
            stages.barh(place, spent, left=left, color=STAGE_COLORS[stage], label=stage if not place else None)
            left += spent
        hours.plot(gpus, [one.hours(count) for count in gpus], "o-", label=f"batches of {one.batch:,}")
    stages.set_yticks(range(len(plans)), [f"{one.batch:,}" for one in plans])
    stages.set(xlabel="worker hours of all", ylabel="edits in a batch", title="70B, a million edits, by arithmetic")
    hours.set(xscale="log", yscale="log", xlabel="GPUs", ylabel="hours from first to last", title="the same, shared")
    hours.set_xticks(gpus, [str(count) for count in gpus])
    for axes in (here, stages, hours):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=130, metadata={"Software": None})
