"""What every benchmark edits with and on: the packaged model, the shared data, each method with the options that ship."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress as Bars

import editors
from benchmarks.cases import Case, edit_batch
from editors.calibration import calibration_for
from editors.contract import Location, Progress, silent
from editors.loading import Checkpoint, LoadedModel, load
from editors.packaged import packaged_folder
from editors.patch import Patch

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CACHE = Path("~/.cache/suture").expanduser()
RESULTS = CACHE / "benchmarks"
"""Where pictures and unfinished runs go when nothing else is said: outside the repository."""
HELD_OUT_PARAGRAPHS = 60


WIDTH = 170


def wide_console() -> Console:
    """A console whose tables are whole in a file as well, where there is no terminal to ask for its width."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


@contextmanager
def shown_progress(console: Console) -> Iterator[Progress]:
    """A progress callback with a bar for each thing that it is told of; the bars go when the work is done."""
    with Bars(console=console, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total or None)
            bars.update(tasks[what], completed=done)

        yield show


def packaged_model() -> LoadedModel:
    """SmolLM2-135M-Instruct, float32 on the CPU."""
    return load(Checkpoint(packaged_folder(CACHE)))


def plan(model: LoadedModel, method: str, cases: Sequence[Case], statistics: Path, progress: Progress = silent,
         base_digest: str | None = None, earlier: Sequence[Patch] = ()) -> Patch:
    """The method's patch for the cases, with the calibration that ships.

    Args:
        model: The model as it is now.
        method: A name of `editors.names()`.
        cases: The edits.
        statistics: The store of second moments.
        progress: Told how far it is.
        base_digest: The base's, where the model carries edits.
        earlier: The patches that it carries, in order.
    """
    batch = edit_batch(cases, model, base_digest)
    calibration = calibration_for(method, batch.base_digest, model.anatomy)
    location = Location(layers=calibration.layers, positions={}, source="calibration")
    return editors.get(method).from_options(calibration.options).plan(model, batch, location, statistics, progress, earlier)
