"""Rollback: move the channel back, enter it into the ledger, mirror it in the registry. Nothing is deleted."""

from __future__ import annotations

from typing import Any

from prefect import flow

from editors.errors import IntegrityError, NotFound
from flows.announce import announce
from flows.answers import find_channel
from flows.house import open_house
from flows.settings import read_settings
from flows.stages import move_back
from tasks import channel as channels
from tasks.intent import one_back
from tasks.manifest import Cause
from tasks.store import Store


@flow(name="rollback", persist_result=False)
def rollback(
    channel: str, to: str | None, by: str, reason: str = "rolled back by hand", model: str | None = None
) -> dict[str, Any]:
    """Take a channel back to the version before, or to `to`.

    Raises:
        NotFound: there is no such channel.
        ConfigError: there is nothing before, or the channel never stood at `to`.
        PromotionConflict: somebody else moved the channel meanwhile.
    """
    with open_house(read_settings()) as house:
        name = find_channel(house.store, channel, model)
        pointer, _ = channels.read_pointer(house.store, name, channel)
        # until the answer is complete: whoever did not get it says the same again
        with one_back(house.root / "work" / "intents", pointer, Cause(by, reason)) as began:
            moved = move_back(name, channel, to, Cause(by, reason), began, house)
            answer = {
                "model": name, "channel": channel, "version": moved.to_version, "left": moved.from_version,
                "sequence": moved.sequence, "manifest": moved.manifest, "files": len(moved.files),
                "warnings": _warnings(house.store, name, moved.from_version, moved.to_version),
                "digests": {file: blob.sha256 for file, blob in moved.files.items()},
                "next": [f"suture history {channel}", f"suture pull {channel} ./model"]}
            return announce("rolled back", answer, by)


def _warnings(store: Store, model: str, left: str | None, version: str) -> list[str]:
    """What a person who rolled back must know: secrets that were withdrawn are told again."""
    if left is None:
        return []
    try:
        gone, kept = channels.read_version(store, model, left), channels.read_version(store, model, version)
    except (NotFound, IntegrityError):
        return [f"what {left} held beyond {version} cannot be read; look whether it withdrew secrets"]
    withdrawn = sum(entry.request_count for entry in gone.stack
                    if entry.purpose == "forget" and entry.digest not in kept.patch_digests)
    requests = f"{withdrawn} request{'s' if withdrawn > 1 else ''} to forget"
    return [f"{version} was made before {requests} that {left} carried out: it tells those secrets again"] if withdrawn else []
