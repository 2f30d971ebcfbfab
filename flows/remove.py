"""The removal flow: one edit out of a channel's stack, judged and registered like an edit, and on to the channel."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.announce import announce_version
from flows.answers import find_version, next_commands, version_answer
from flows.artifacts import keep_summary
from flows.house import open_house
from flows.settings import read_settings
from flows.stages import (
    approve_by_policy,
    heal,
    leave_out,
    pass_judgement,
    point_channel,
    publish_version,
    take_in_removal,
    take_measure,
    write_down_removal,
)
from tasks.house import House
from tasks.records import Registered, Removal
from tasks.removal import removed_by


@flow(name="remove", persist_result=False)
def remove(version: str, channel: str, policy: str | None = None, reason: str = "taken out by hand") -> dict[str, Any]:
    """Take the edit that a version brought out of what a channel serves.

    Args:
        version: The version that brought the edit, or its unique beginning.
        channel: The channel whose release is to lose it.
        policy: A gate policy's file; None: the shipped one for removals.
        reason: Why; kept in the version's record and in the ledger.

    Returns:
        The new version with its verdict, transcripts and places; `passed` says what the gate decided.

    Raises:
        ConfigError: the channel does not hold the edit, or stood at the remaining stack before.
        SutureError: whatever else a user can cause, each typed.
    """
    with open_house(read_settings()) as house:
        model, full = find_version(house.store, version)
        done = removed_by(model, full, channel, house)
        if done is not None:
            return _done(model, channel, full, done, house)
        removal = take_in_removal(model, full, channel, policy, reason, house)
        remaining = leave_out(removal, house)
        measured = take_measure(removal.order, remaining.edited, house)
        judged = pass_judgement(removal.order, remaining.edited.candidate_digest, measured, house)
        registered = write_down_removal(removal, remaining, measured, judged, house)
        if judged.verdict.passed and approve_by_policy(removal.order, registered, house):
            release = publish_version(model, registered.version, house)
            point_channel(release, channel, house.user, reason, house)
        answer = keep_summary(_answer(removal, registered, house), removal.order.batch.purpose, house.mlflow_uri)
        return announce_version(answer)


def _answer(removal: Removal, registered: Registered, house: House) -> dict[str, Any]:
    answer = version_answer(house, removal.order.model, registered.version)
    return {**answer, "layers": [], "warnings": [], "page": str(registered.page), "certificate": None,
            "picture": None, "mlflow": registered.uri,
            "next": next_commands(answer)}


def _done(model: str, channel: str, version: str, done: str, house: House) -> dict[str, Any]:
    """The answer where the edit is out already; what a kill left undone behind it is done."""
    heal(model, channel, house)
    answer = version_answer(house, model, done)
    note = f"channel {channel} lost the edit of version {version} already, by version {done}; nothing was done"
    return {**answer, "layers": [], "warnings": [note], "page": None, "certificate": None, "picture": None, "mlflow": None,
            "next": next_commands(answer)}
