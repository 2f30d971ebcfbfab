"""Verify: is what a channel serves still what was approved? Every byte hashed again, every measurement taken again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow

from editors.errors import ConfigError
from flows.announce import announce
from flows.answers import find_channel
from flows.house import open_house
from flows.settings import read_settings
from flows.stages import look_again, pass_judgement, take_measure
from tasks import channel as channels
from tasks import ledger
from tasks.house import House
from tasks.manifest import Contents
from tasks.measure import read_measurements
from tasks.verify import DriftAlarm, drifts, order_again, recorded_measurements


@flow(name="verify", persist_result=False)
def verify(channel: str, model: str | None = None, policy: str | None = None) -> dict[str, Any]:
    """Verify the release that a channel serves.

    Args:
        channel: The channel.
        model: The model's name, where several have this channel.
        policy: A gate policy's file to judge it by. None: the purpose's own.

    Returns:
        What was looked at, and that all of it is as it was.

    Raises:
        NotFound: there is no such channel.
        IntegrityError: the pointer, the manifest or the ledger was changed.
        DriftAlarm: a file is damaged, a number moved, or the gate would refuse it now.
    """
    with open_house(read_settings()) as house, _apart(house) as fresh:
        name = find_channel(house.store, channel, model)
        state = channels.read(house.store, name, channel)
        if state is None:
            raise ConfigError(f"channel {channel} was closed while it was looked at", f"suture verify {channel}")
        moves = ledger.history(house.store, name, channel)
        folder = fresh.root / "served"
        damaged = look_again(state.manifest, folder, fresh)
        answer: dict[str, Any] = {
            "model": name, "channel": channel, "version": state.manifest.version, "files": len(state.manifest.files),
            "moves": len(moves), "damaged": [one.model_dump() for one in damaged], "measured": 0, "not_measured": 0,
            "drifted": [], "failed_rules": [], "notes": [], "next": [f"suture history {channel}"]}
        if state.stack and not damaged:
            answer |= _measured_again(state.manifest, folder, channel, policy, fresh)
        answer["sound"] = not (answer["damaged"] or answer["drifted"] or answer["failed_rules"])
        if not answer["sound"]:
            alarm = _alarm(answer)
            announce("alarm", alarm.answer)
            raise alarm
        return answer


def _measured_again(contents: Contents, folder: Path, channel: str, policy: str | None, house: House) -> dict[str, Any]:
    order, edited = order_again(contents, folder, channel, policy, house)
    measured = take_measure(order, edited, house)
    moved, missing = drifts(recorded_measurements(contents, house), read_measurements(measured))
    found = read_measurements(measured)
    answer = {"measured": len(found.rows), "not_measured": missing, "drifted": [one.model_dump() for one in moved]}
    if missing:
        # an order without its requests to forget would be refused for their absence
        return answer | {"notes": [f"{missing} numbers need texts that were to be forgotten; the gate was not asked again"]}
    verdict = pass_judgement(order, edited.candidate_digest, measured, house).verdict
    failed = [rule.name for rule in verdict.rules if not rule.passed and rule.severity == "critical"]
    return answer | {"failed_rules": failed}


def _alarm(answer: dict[str, Any]) -> DriftAlarm:
    found = [f"{one['what']}: {one['problem']}" for one in answer["damaged"]]
    found += [f"{one['request']} {one['metric']} was {one['recorded']:.4g}, is {one['found']:.4g}" for one in answer["drifted"]]
    found += [f"the gate refuses it now: {name}" for name in answer["failed_rules"]]
    more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
    hint = f"suture rollback {answer['channel']}, or restore what is damaged from a backup"
    return DriftAlarm(f"channel {answer['channel']} does not serve what was approved: {'; '.join(found[:5])}{more}", hint,
                      answer | {"next": [hint]})


@contextmanager
def _apart(house: House) -> Iterator[House]:
    """A home beside the house's, in which nothing was measured yet; gone when the block ends."""
    (house.root / "verify").mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=house.root / "verify"))
    try:
        yield replace(house, root=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
