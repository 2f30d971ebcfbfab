"""What a long command shows while it works: one line a stage, with a bar where the total is known.

The flow reports through `current()`. On a terminal that is a Rich display on standard error; in a log (a worker, CI, a
pipe) it is one line when a stage begins and one when it ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import TaskID

logger = logging.getLogger("suture")


class Reporter(Protocol):
    """Where progress goes."""

    def stage(self, title: str) -> None:
        """A stage begins; the one before is done."""

    def step(self, what: str, done: int, total: int) -> None:
        """Progress inside the stage; `total` 0 means unknown."""

    def note(self, text: str) -> None:
        """Something the user must not miss."""

    def close(self) -> None:
        """No more stages."""


class LogReporter:
    """One line an event, through `logging`."""

    def __init__(self) -> None:
        self._title, self._begun = "", 0.0

    def stage(self, title: str) -> None:
        """A stage begins."""
        self.close()
        self._title, self._begun = title, time.monotonic()
        logger.info("%s", title)

    def step(self, what: str, done: int, total: int) -> None:
        """Steps are not logged."""

    def note(self, text: str) -> None:
        """A warning line."""
        logger.warning("%s", text)

    def close(self) -> None:
        """The stage's time."""
        if self._title:
            logger.info("%s: done in %.1f s", self._title, time.monotonic() - self._begun)
        self._title = ""


class TerminalReporter:
    """Rich progress bars on standard error."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True)
        self._bars = Progress(SpinnerColumn(finished_text="[green]✓[/]"), TextColumn("{task.description:<11}"),
                              BarColumn(bar_width=24), TextColumn("[dim]{task.fields[what]}[/]"), TimeElapsedColumn(),
                              console=self._console)
        self._bars.start()
        self._task: TaskID | None = None

    def stage(self, title: str) -> None:
        """A new bar; the one before is full."""
        self._finish()
        self._task = self._bars.add_task(title, total=None, what="")

    def step(self, what: str, done: int, total: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total or None, what=what)

    def note(self, text: str) -> None:
        """Print above the bars."""
        self._console.print(f"[bold yellow]![/] {text}")

    def close(self) -> None:
        """Leave the finished bars on the screen."""
        self._finish()
        self._bars.stop()

    def _finish(self) -> None:
        if self._task is not None:
            self._bars.update(self._task, total=1, completed=1, what="")
            self._task = None


_current: ContextVar[Reporter] = ContextVar("reporter")


def current() -> Reporter:
    """The reporter of this run."""
    return _current.get(LogReporter())


@contextmanager
def reporting(reporter: Reporter) -> Iterator[Reporter]:
    """Make `reporter` the current one inside the block, and close it after."""
    token = _current.set(reporter)
    try:
        yield reporter
    finally:
        reporter.close()
        _current.reset(token)
