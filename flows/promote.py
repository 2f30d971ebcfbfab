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
from tasks import decisions
from tasks.manifest import Candidate
from tasks.store import Store


@flow(name="promote", persist_result=False)
def promote(version: str, by: str, reason: str | None = None) -> dict[str, Any]:
    """Promote one approved version to the channel it was made for.

    Args:
        version: The version, or its unique beginning.
        by: Who promotes; kept in the ledger.
        reason: Why; kept in the ledger. None: what those said who approved it.

    Returns:
        What moved and what the channel serves now.

    Raises:
        ApprovalMissing: nobody approved exactly this version.
        GateRefused: the gate refused it.
        PromotionConflict: somebody else moved the channel first.
    """
    with open_house(read_settings()) as house:
        model, full = find_version(house.store, version)
        candidate = channels.read_candidate(house.store, model, full)
        release = publish_version(model, full, house)
        channel, why = candidate.channel, reason or _approved_with(house.store, candidate)
        moved = point_channel(release, channel, by, why, house)
        transfer = release.transfer
        answer = {
            "version": full, "model": model, "channel": channel, "previous": moved.from_version, "url": release.uri,
            "manifest": release.manifest, "sequence": moved.sequence, "moved_objects": transfer.moved_blobs,
            "moved_bytes": transfer.moved_bytes, "kept_objects": transfer.blobs - transfer.moved_blobs,
            "next": next_commands(version_answer(house, model, full))}
        return announce("promoted", answer, by)


def _approved_with(store: Store, candidate: Candidate) -> str:
    made = [record.decision for record in decisions.standing(store, candidate).deciding]
    return "; ".join(f"approved by {decision.by}: {decision.reason}" for decision in made)
