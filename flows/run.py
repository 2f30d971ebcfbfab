"""Commands that run as Prefect flows: begin the servers, load the heavy libraries meanwhile, run the flow."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flows.progress import LogReporter, Reporter, TerminalReporter, reporting
from flows.services import services
from flows.settings import Settings


def edit(settings: Settings, sheet: str, *, quiet: bool) -> dict[str, Any]:
    """Run `flows.edit.edit`."""
    _legible(sheet)
    with _ready(settings, quiet=quiet, model=True):
        from flows.edit import edit as flow

        return flow(sheet)


def inbox(settings: Settings, place: str, every_seconds: float | None, *, quiet: bool) -> Iterator[dict[str, Any]]:
    """Run `flows.inbox.inbox` once, or again and again whenever a sheet waits; the answer of each run."""
    with _ready(settings, quiet=quiet, model=True):
        from flows.house import open_house
        from flows.inbox import inbox as flow
        from flows.inbox import open_inbox

        if every_seconds is None:
            yield flow(place)
            return
        with open_house(settings) as house:
            box = open_inbox(place, house)
            while True:
                if box.waiting():
                    yield flow(place)
                time.sleep(every_seconds)


def dry_run(settings: Settings, sheet: str, *, quiet: bool) -> dict[str, Any]:
    """What `edit` would do and cost."""
    _legible(sheet)
    with shown(quiet):
        from flows.inspect import dry_run as inspect

        return inspect(settings, sheet)


def locate(settings: Settings, sheet: str, locator: str, *, quiet: bool) -> dict[str, Any]:
    """Only the stages up to locate."""
    _legible(sheet)
    with shown(quiet):
        from flows.inspect import locate as inspect

        return inspect(settings, sheet, locator)


def measure(settings: Settings, sheet: str, version: str | None, *, quiet: bool) -> dict[str, Any]:
    """Measure a version on a sheet's requests."""
    _legible(sheet)
    with shown(quiet):
        from flows.inspect import measure as inspect

        return inspect(settings, sheet, version)


def warm(settings: Settings, base: str, layers: str | None, *, quiet: bool) -> dict[str, Any]:
    """Run `flows.warm.warm`."""
    with _ready(settings, quiet=quiet, model=True, gate=False):
        from flows.warm import warm as flow

        return flow(base, layers)


def calibrate(settings: Settings, base: str, facts: str | None, methods: list[str], *, quiet: bool) -> dict[str, Any]:
    """Run `flows.calibrate.calibrate`."""
    with _ready(settings, quiet=quiet, model=True, gate=False):
        from flows.calibrate import calibrate as flow

        return flow(base, facts, methods)


def promote(settings: Settings, version: str, by: str, reason: str | None, *, quiet: bool) -> dict[str, Any]:
    """Run `flows.promote.promote`."""
    with _ready(settings, quiet=quiet, model=False):
        from flows.promote import promote as flow

        return flow(version, by, reason)


def remove(settings: Settings, version: str, channel: str, policy: str | None, reason: str, *, quiet: bool) -> dict[str, Any]:
    """Run `flows.remove.remove`."""
    with _ready(settings, quiet=quiet, model=True):
        from flows.remove import remove as flow

        return flow(version, channel, policy, reason)


def rollback(settings: Settings, channel: str, to: str | None, by: str, reason: str, model: str | None, *,
             quiet: bool) -> dict[str, Any]:
    """Run `flows.rollback.rollback`."""
    with _ready(settings, quiet=quiet, model=False):
        from flows.rollback import rollback as flow

        return flow(channel, to, by, reason, model)


def verify(settings: Settings, channel: str, model: str | None, policy: str | None, *, quiet: bool) -> dict[str, Any]:
    """Run `flows.verify.verify`; an alarm's report is an answer, too."""
    from tasks.verify import DriftAlarm

    with _ready(settings, quiet=quiet, model=True):
        from flows.verify import verify as flow

        try:
            return flow(channel, model, policy)
        except DriftAlarm as alarm:
            return alarm.answer


@contextmanager
def shown(quiet: bool) -> Iterator[Reporter]:
    """Progress on a terminal, else in the log, inside the block."""
    reporter: Reporter = LogReporter() if quiet or not sys.stderr.isatty() else TerminalReporter()
    with reporting(reporter):
        yield reporter


@contextmanager
def _ready(settings: Settings, *, quiet: bool, model: bool, gate: bool = True) -> Iterator[None]:
    """Servers up and libraries imported; the imports run while the servers start."""
    with services(settings, prefect=True) as held, shown(quiet) as reporter:
        reporter.stage("start")
        if model:
            import torch  # noqa: F401
            import transformers  # noqa: F401
        held.prefect()
        if model and gate:
            # the gate's library takes seconds to import; it does so while the model is edited
            threading.Thread(target=_warm_gate, daemon=True).start()
        yield


def _legible(address: str) -> None:
    """Refuse a sheet with problems before servers and libraries are started for it."""
    from tasks.sheets import is_stored, local_sheet

    if not is_stored(address):
        local_sheet(address)


def _warm_gate() -> None:
    from validations.gate import warm

    warm()
