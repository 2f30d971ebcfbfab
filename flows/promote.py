"""Promote: publish what a person approved, move the channel, enter it into the ledger, mirror it in the registry."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.announce import announce
from flows.answers import find_version, next_commands, version_answer
from flows.house import open_house
from flows.settings import read_settings
from flows.stages import point_channel, publish_version
from tasks import channel as channels


@flow(name="promote", persist_result=False)
def promote(version: str, by: str, reason: str = "approved") -> dict[str, Any]:
    """Promote one approved version to the channel it was made for.

    Args:
        version: The version, or its unique beginning.
        by: Who promotes; kept in the ledger.
        reason: Why; kept in the ledger.

    Returns:
        What moved and what the channel serves now.

    Raises:
        ApprovalMissing: nobody approved exactly this version.
        GateRefused: the gate refused it.
        PromotionConflict: somebody else moved the channel first.
    """
    with open_house(read_settings()) as house:
        model, full = find_version(house.store, version)
        channel = channels.read_candidate(house.store, model, full).channel
        release = publish_version(model, full, house)
        moved = point_channel(release, channel, by, reason, house)
        transfer = release.transfer
        answer = {
            "version": full, "model": model, "channel": channel, "previous": moved.from_version, "url": release.uri,
            "manifest": release.manifest, "sequence": moved.sequence, "moved_objects": transfer.moved_blobs,
            "moved_bytes": transfer.moved_bytes, "kept_objects": transfer.blobs - transfer.moved_blobs,
            "next": next_commands(version_answer(house, model, full))}
        return announce("promoted", answer, by)
