"""The ledger keeps every move once and in order, whoever dies or races, and shows when it was touched."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from editors.errors import IntegrityError
from tasks.ledger import heal, history
from tasks.manifest import LedgerEntry, Pointer, base_version, channel_key, ledger_key, ledger_prefix, serialise
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


@pytest.mark.parametrize("change", [{"move": 3}, {"move": 2, "previous": "d" * 64}, {"move": 1}])
def test_a_changed_pointer_does_not_spoil_the_ledger(store: Store, change: dict) -> None:
    first, second = moves("demo", 2)
    heal(store, first)
    entry = second.entry.model_copy(update=change)
    with pytest.raises(IntegrityError, match=r"00000001\.json (and the pointer|is not the entry)"):
        heal(store, second.model_copy(update={"entry": entry}))
    with pytest.raises(IntegrityError, match="the pointer of channel demo is at its move 2, and the ledger"):
        heal(store, Pointer.model_validate({**second.model_dump(), "model": "other"}))
    assert [record.entry for record in history(store, "tiny")] == [first.entry]


@pytest.mark.parametrize("touched", ["the last entry", "the pointer"])
def test_the_last_entry_and_the_pointer_tell_the_same(store: Store, touched: str) -> None:
    first, second, third = moves("demo", 3)
    heal(store, first)
    heal(store, second)
    for pointer in (second, third):
        tamper(store, channel_key("tiny", "demo"), serialise(pointer))
        assert len(history(store, "tiny", "demo")) == 2, "a move whose entry is still to come"
    heal(store, third)
    changed = third.entry.model_copy(update={"by": "eve"})
    if touched == "the pointer":
        tamper(store, channel_key("tiny", "demo"), serialise(third.model_copy(update={"entry": changed})))
    else:
        tamper(store, ledger_key("tiny", 3), serialise(changed))
    with pytest.raises(IntegrityError, match=r"3\.json and the pointer of channel demo at its move 3 contradict each other"):
        history(store, "tiny", "demo")
    tamper(store, channel_key("tiny", "demo"), serialise(first))
    with pytest.raises(IntegrityError, match="contradict each other"):
        history(store, "tiny")
