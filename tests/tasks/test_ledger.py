"""The ledger keeps every move once and in order, whoever dies or races, and shows when it was touched."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from editors.errors import IntegrityError
from tasks.ledger import heal, history
from tasks.manifest import LedgerEntry, Pointer, base_version, ledger_key, ledger_prefix
from tasks.store import Store
from tests.tasks.release_line import tamper

pytestmark = pytest.mark.flow
VERSION = base_version("a" * 64)


@pytest.fixture
def store(release_store: Store) -> Store:
    return release_store


def moves(channel: str, count: int) -> list[Pointer]:
    """Pointers of a channel that was moved `count` times."""
    made: list[Pointer] = []
    for move in range(1, count + 1):
        entry = LedgerEntry(kind="promote", channel=channel, move=move, by="ada", reason=f"move {move}",
                            at="2026-01-01T00:00:00", from_version=VERSION, to_version=VERSION, manifest="c" * 64,
                            verdict=None, decision=None, previous=made[-1].entry.digest if made else None)
        made.append(Pointer(model="tiny", channel=channel, version=VERSION, manifest="c" * 64, entry=entry))
    return made


def test_healing_twice_appends_once(store: Store) -> None:
    first, second = moves("demo", 2)
    assert heal(store, first) == heal(store, first)
    heal(store, second)
    assert heal(store, first).sequence == 1
    assert [record.entry for record in history(store, "tiny")] == [first.entry, second.entry]


def test_many_healers_of_one_move_leave_one_entry(store: Store) -> None:
    first, second = moves("demo", 2)
    heal(store, first)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: heal(store, second), range(6)))
    assert {record.sequence for record in found} == {2}
    assert len(history(store, "tiny")) == 2


def test_channels_that_append_at_once_share_the_numbers(store: Store) -> None:
    lines = {channel: moves(channel, 3) for channel in ("demo", "staging", "production")}
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda line: [heal(store, pointer) for pointer in line], lines.values()))
    everything = history(store, "tiny")
    assert [record.sequence for record in everything] == list(range(1, 10))
    for channel, line in lines.items():
        assert [record.entry for record in history(store, "tiny", channel)] == [pointer.entry for pointer in line]


def test_a_changed_entry_is_seen(store: Store) -> None:
    for pointer in moves("demo", 3):
        heal(store, pointer)
    key = ledger_key("tiny", 2)
    tamper(store, key, json.dumps(store.get_json(key) | {"by": "eve"}).encode())
    with pytest.raises(IntegrityError, match=r"00000003.json does not follow the entry before it"):
        history(store, "tiny")


def test_the_last_entry_is_held_to_the_pointer(store: Store) -> None:
    first = moves("demo", 1)[0]
    heal(store, first)
    key = ledger_key("tiny", 1)
    tamper(store, key, json.dumps(store.get_json(key) | {"by": "eve"}).encode())
    with pytest.raises(IntegrityError, match="is not the entry of move 1 of channel demo"):
        heal(store, first)


def test_a_removed_entry_is_seen(store: Store) -> None:
    line = moves("demo", 3)
    for pointer in line:
        heal(store, pointer)
    store.remove(ledger_key("tiny", 2))
    with pytest.raises(IntegrityError, match="lacks entry 2"):
        history(store, "tiny")


def test_an_empty_ledger_is_an_empty_history(store: Store) -> None:
    assert history(store, "tiny") == ()
    assert store.list(ledger_prefix("tiny")) == ()
