"""Rollback: move the channel back, enter it into the ledger, mirror it in the registry. Nothing is deleted."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.answers import find_channel
from flows.house import open_house
from flows.settings import read_settings
from flows.stages import move_back


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
        moved = move_back(name, channel, to, by, reason, house)
        return {"model": name, "channel": channel, "version": moved.to_version, "left": moved.from_version,
                "sequence": moved.sequence, "manifest": moved.manifest, "files": len(moved.files),
                "digests": {file: blob.sha256 for file, blob in moved.files.items()},
                "next": [f"suture history {channel}", f"suture pull {channel} ./model"]}
