"""Where the line stands, as Prometheus reads it: channels, their moves, and versions by state, from the store's own records.

From the store and not from counters in processes, because commands come and go: whoever asks last gets the same numbers.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime

from editors.errors import IntegrityError, NotFound
from flows.answers import state_of
from tasks import channel as channels
from tasks import decisions
from tasks.store import Store

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics_text(store: Store) -> str:
    """The exposition of everything below; a record that cannot be read is counted, and stops nothing.

    Raises:
        StoreError: the store cannot be reached.
    """
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()

    def gauge(name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"suture_{name}", meaning, labels, registry=registry)

    moves = gauge("channel_moves", "Moves in a channel's ledger", "model", "channel")
    moved = gauge("channel_moved_timestamp_seconds", "When a channel was moved last", "model", "channel", "kind")
    edits = gauge("channel_edits", "Edits in what a channel serves", "model", "channel")
    versions = gauge("versions", "Versions by state: pending waits for approval", "model", "channel", "state")
    unreadable = gauge("unreadable_records", "Records that contradict themselves, are gone, or lack a signature")
    for parts in _keys(store, "channels"):
        try:
            pointer, _ = channels.read_pointer(store, *parts)
            moves.labels(*parts).set(pointer.entry.move)
            moved.labels(*parts, pointer.entry.kind).set(datetime.fromisoformat(pointer.entry.at).timestamp())
            release, _ = channels.read_release(store, parts[0], pointer.version, pointer.manifest)
            edits.labels(*parts).set(len(release.stack))
        except (IntegrityError, NotFound):
            unreadable.inc()
    counted: Counter[tuple[str, str, str]] = Counter()
    for model, version in _keys(store, "candidates"):
        try:
            candidate = channels.read_candidate(store, model, version)
            contents = channels.read_version(store, model, version)
            state = state_of(store, candidate, decisions.standing(store, candidate), contents)
            counted[model, candidate.channel, state] += 1
        except (IntegrityError, NotFound):
            unreadable.inc()
    for labels, count in sorted(counted.items()):
        versions.labels(*labels).set(count)
    gauge("looked_timestamp_seconds", "When these numbers were taken").set(time.time())
    return generate_latest(registry).decode()


def _keys(store: Store, kind: str) -> list[tuple[str, str]]:
    """Model and name of every record of a kind."""
    split = [stored.key.split("/") for stored in store.list("models/")]
    return sorted((parts[1], parts[3].removesuffix(".json")) for parts in split
                  if len(parts) == 4 and parts[2] == kind and parts[3].endswith(".json"))
