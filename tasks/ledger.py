"""The ledger: every move of every channel, appended once and never changed.

A pointer carries the entry that its last move implies. Whoever wants to move it first sees that entry into the ledger,
so a process killed between the two loses nothing; and an entry is looked for before it is appended, so nothing stands
there twice: numbers have no gaps, and one is taken only after the entry was not found under any smaller one.
"""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from editors.contract import Frozen
from editors.errors import IntegrityError, NotFound, StoreError
from tasks.channel import address, read_pointer
from tasks.manifest import LedgerEntry, Pointer, ledger_key, ledger_prefix, parse, serialise
from tasks.store import Store
from tasks.store_errors import ImmutableConflict
from tasks.store_location import StoredObject

ATTEMPTS = 20
READS_AT_ONCE = 8


class LedgerRecord(Frozen):
    """An entry where it stands: the ledger of a model counts over all its channels, from 1."""

    uri: str
    sequence: int
    entry: LedgerEntry


def heal(store: Store, pointer: Pointer) -> LedgerRecord:
    """See to it that the pointer's own entry stands in the ledger, once; returns it where it stands.

    Raises:
        IntegrityError: another entry stands in its place.
        StoreError: other channels of the model kept taking the next number.
    """
    for attempt in range(ATTEMPTS):
        listed = _listed(store, pointer.model)
        if (found := _find(store, listed, pointer)) is not None:
            return found
        key = ledger_key(pointer.model, len(listed) + 1)
        try:
            store.put_new(key, serialise(pointer.entry))
        except ImmutableConflict:
            time.sleep(random.uniform(0, 0.05 * (attempt + 1)))  # noqa: S311 spreads writers, hides nothing
            continue
        return LedgerRecord(uri=address(store, key), sequence=len(listed) + 1, entry=pointer.entry)
    raise StoreError(f"the ledger of {pointer.model} is too busy: {ATTEMPTS} numbers were taken by others",
                     "run the same command again; finished work is kept")


def history(store: Store, model: str, channel: str | None = None) -> tuple[LedgerRecord, ...]:
    """The ledger, oldest first; of one channel or of all.

    Each entry names the one before it. The last has none behind it, so each channel's is held to the pointer.

    Raises:
        IntegrityError: an entry was changed or is missing, or a pointer was changed.
    """
    listed = _listed(store, model)
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        records = tuple(pool.map(lambda stored: _read(store, stored), listed))
    last: dict[str, str] = {}
    for record in records:
        entry = record.entry
        if entry.previous != last.get(entry.channel):
            raise IntegrityError(f"{record.uri} does not follow the entry before it: expected previous "
                                 f"{last.get(entry.channel)}, found {entry.previous}",
                                 "an entry was changed or removed: restore the ledger from a backup")
        last[entry.channel] = entry.digest
    for record in {record.entry.channel: record for record in records}.values():
        if channel in (None, record.entry.channel):
            _hold_to_pointer(store, model, record)
    return tuple(record for record in records if channel in (None, record.entry.channel))


def _hold_to_pointer(store: Store, model: str, last: LedgerRecord) -> None:
    """The pointer was read after the ledger: it stands at the channel's last entry, or further on and says so itself."""
    try:
        pointer, _ = read_pointer(store, model, last.entry.channel)
    except NotFound:
        return
    if pointer.entry.move > last.entry.move + 1:
        return
    before = pointer.entry.previous if pointer.entry.move == last.entry.move + 1 else pointer.entry.digest
    if pointer.entry.move < last.entry.move or before != last.entry.digest:
        raise _contradiction(last, pointer)


def _contradiction(record: LedgerRecord, pointer: Pointer) -> IntegrityError:
    return IntegrityError(f"{record.uri} and the pointer of channel {pointer.channel} at its move {pointer.entry.move} "
                          "contradict each other", "the entry or the pointer was changed: restore it from a backup")


def _listed(store: Store, model: str) -> tuple[StoredObject, ...]:
    listed = tuple(stored for stored in store.list(ledger_prefix(model)) if PurePosixPath(stored.key).stem.isdecimal())
    numbers = [_sequence(stored) for stored in listed]
    if numbers != list(range(1, len(numbers) + 1)):
        missing = next(number for number in range(1, len(numbers) + 1) if number not in numbers)
        raise IntegrityError(f"the ledger at {address(store, ledger_prefix(model))} lacks entry {missing}",
                             "restore the ledger from a backup")
    return listed


def _find(store: Store, listed: tuple[StoredObject, ...], pointer: Pointer) -> LedgerRecord | None:
    for stored in reversed(listed):
        record = _read(store, stored)
        if record.entry.channel != pointer.channel or record.entry.move > pointer.entry.move:
            continue
        if record.entry.move < pointer.entry.move:
            # what is appended must follow what is there: a pointer that was changed would spoil the ledger for good
            if (record.entry.move + 1, record.entry.digest) != (pointer.entry.move, pointer.entry.previous):
                raise _contradiction(record, pointer)
            return None
        if record.entry != pointer.entry:
            raise IntegrityError(f"{record.uri} is not the entry of move {pointer.entry.move} of channel {pointer.channel}",
                                 "the entry or the pointer was changed: restore it from a backup")
        return record
    if (pointer.entry.move, pointer.entry.previous) != (1, None):
        raise IntegrityError(f"the pointer of channel {pointer.channel} is at its move {pointer.entry.move}, and the ledger at "
                             f"{address(store, ledger_prefix(pointer.model))} has none before it",
                             "the pointer was changed, or the ledger lost: restore it from a backup")
    return None


def _read(store: Store, stored: StoredObject) -> LedgerRecord:
    uri = address(store, stored.key)
    entry = parse(LedgerEntry, store.get_bytes(stored.key)[0], uri)
    return LedgerRecord(uri=uri, sequence=_sequence(stored), entry=entry)


def _sequence(stored: StoredObject) -> int:
    return int(PurePosixPath(stored.key).stem)
