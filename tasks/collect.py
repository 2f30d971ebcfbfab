"""Garbage collection: what nothing names any more is put aside, and what lay aside long enough is removed for good.

Named is, with everything that its record names: each release; each candidate that may still be promoted, or was released; the
former records of these. A candidate that was refused, or that the channel has passed by, is named until it is old enough.

A publish that runs meanwhile is safe as long as it takes less than the grace period. It may find a blob in place and write a
record that names it after this has read all records: but then the blob only lies aside, where readers still find it, and is put
back by the second look at the end or by the next collection. It is removed a grace period after it was put aside, if no record
names it then; a publish that began later found it missing and brought it anew. A record that cannot be read stops everything
before anything is touched: what it names is not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from editors.contract import Frozen
from editors.errors import ConfigError, NotFound
from tasks import channel as channels
from tasks import decisions
from tasks.channel import address
from tasks.manifest import Candidate, Contents, Pointer, ReleaseManifest, candidate_key, parse
from tasks.store import Store, blob_key
from tasks.store_errors import TRASH
from tasks.store_location import StoredObject


@dataclass(frozen=True)
class Ages:
    """How old things must be."""

    candidate_days: float = 30.0
    """Days after which a refused or superseded candidate is named no more; 0 or more. A month is time to look at it."""
    grace_hours: float = 24.0
    """Hours that a publish may take at most; 1 or more. The largest model on the slowest line takes less than a day."""

    def __post_init__(self) -> None:
        if not 0 <= self.candidate_days <= 36500:
            raise ConfigError(f"--older-than must be 0 days or more, got {self.candidate_days}", "--older-than 30")
        if not 1 <= self.grace_hours <= 876000:
            raise ConfigError(f"--grace must be 1 hour or more, got {self.grace_hours}: a publish that runs may need what "
                              "nothing names yet", "--grace 24")


class Garbage(Frozen):
    """One object that nothing needs."""

    key: str
    why: str
    size_bytes: int
    modified: datetime


class Collected(Frozen):
    """What a collection did, or would do."""

    put_aside: tuple[Garbage, ...]
    removed: tuple[Garbage, ...]
    """What lay aside for the grace period."""
    restored: tuple[str, ...]
    """Keys of what lay aside and is named again."""
    kept_objects: int


@dataclass(frozen=True)
class Seen:
    """One look at the whole store."""

    objects: Mapping[str, StoredObject]
    named: Mapping[str, str]
    """Key -> what names it."""
    dropped: Mapping[str, str]
    """Keys of candidates that are named no more -> why."""


def collect(store: Store, ages: Ages, *, dry_run: bool) -> Collected:
    """Put aside what nothing names, put back what is named again, and remove what lay aside for the grace period.

    Raises:
        IntegrityError: a record cannot be read; nothing was touched.
        StoreError: the store cannot be reached, forbids, or failed; what was done stays done.
    """
    now = store.clock()
    seen = look(store, ages, now)
    aside = [one for one in garbage(seen) if now - one.modified >= timedelta(hours=ages.grace_hours)]
    lying = [stored for stored in seen.objects.values() if stored.key.startswith(TRASH)]
    over = [Garbage(key=one.key, why="lay aside", size_bytes=one.size_bytes, modified=one.modified) for one in lying
            if one.key.removeprefix(TRASH) not in seen.named and now - one.modified >= timedelta(hours=ages.grace_hours)]
    kept = len(seen.objects) - len(aside) - len(over)
    if dry_run:
        back = [one.key.removeprefix(TRASH) for one in lying if one.key.removeprefix(TRASH) in seen.named]
        return Collected(put_aside=tuple(aside), removed=tuple(over), restored=tuple(back), kept_objects=kept)
    for one in aside:
        with suppress(NotFound):  # another collection was first
            store.move(one.key, TRASH + one.key)
    again = look(store, ages, now)
    restored = tuple(_restore(store, again))
    gone = tuple(one for one in over if one.key.removeprefix(TRASH) not in again.named)
    for one in gone:
        store.remove(one.key)
    return Collected(put_aside=tuple(one for one in aside if one.key not in restored), removed=gone, restored=restored,
                     kept_objects=kept)


def look(store: Store, ages: Ages, now: datetime) -> Seen:
    """Every object and what names it.

    Raises:
        IntegrityError: a record cannot be read.
    """
    objects = {stored.key: stored for stored in store.list()}
    places = {key: key.removeprefix(TRASH).split("/") for key in objects}
    records = {key: parts for key, parts in places.items()
               if len(parts) == 4 and parts[0] == "models" and key.endswith(".json")}
    stands = {(parts[1], parts[3].removesuffix(".json")): parse(Pointer, store.get_bytes(key)[0], address(store, key)).version
              for key, parts in records.items() if parts[2] == "channels"}
    named: dict[str, str] = {}
    for key in (key for key, parts in records.items() if parts[2] == "releases"):
        release = parse(ReleaseManifest, store.get_bytes(key)[0], address(store, key))
        named |= dict.fromkeys(_blobs(release), f"release {release.version}")
        named[candidate_key(release.model, release.version)] = f"release {release.version}"
    dropped: dict[str, str] = {}
    for key in (key for key, parts in records.items() if parts[2] == "candidates"):
        candidate = parse(Candidate, store.get_bytes(key)[0], address(store, key))
        own = candidate_key(candidate.model, candidate.version)
        why = None if own in named else _why_dropped(store, candidate, stands)
        if why and now - objects[key].modified >= timedelta(days=ages.candidate_days):
            dropped[own] = why
        elif key == own or own in named:
            named |= dict.fromkeys((own, *_blobs(candidate), *_former(store, candidate)), f"candidate {candidate.version}")
    return Seen(objects, named, dropped)


def garbage(seen: Seen) -> Iterator[Garbage]:
    """The blobs and candidates in place that nothing names."""
    for key, stored in seen.objects.items():
        if key in seen.named or not (key.startswith("blobs/sha256/") or key in seen.dropped):
            continue
        yield Garbage(key=key, why=seen.dropped.get(key, "nothing names it"), size_bytes=stored.size_bytes,
                      modified=stored.modified)


def _restore(store: Store, seen: Seen) -> Iterator[str]:
    """Put back what lies aside and is named and not there; where it is there anew, the one aside is left to its age."""
    for key in [key.removeprefix(TRASH) for key in seen.objects if key.startswith(TRASH)]:
        if key in seen.named and key not in seen.objects:
            with suppress(NotFound):  # another collection put it back
                store.move(TRASH + key, key)
            yield key


def _why_dropped(store: Store, candidate: Candidate, stands: Mapping[tuple[str, str], str]) -> str | None:
    """Why a candidate can never be promoted, or not any more; None when it still may."""
    if candidate.state == "refused":
        return "the gate refused it"
    if (refusal := decisions.standing(store, candidate).refusal) is not None:
        return f"{refusal.decision.by} refused it"
    place = stands.get((candidate.model, candidate.channel))
    if place is not None and place != candidate.parent:
        return f"channel {candidate.channel} has moved on to {place}"
    return None


def _blobs(contents: Contents) -> Iterator[str]:
    """Keys of every blob that a record names."""
    for entry in contents.stack:
        yield from (blob_key(blob.sha256) for blob in (entry.document, entry.tensors, entry.batch))
    yield from (blob_key(blob.sha256) for blob in (*contents.files.values(), *contents.artefacts.values()))
    if contents.verdict is not None:
        yield blob_key(contents.verdict.sha256)
    if isinstance(contents, Candidate):
        yield blob_key(contents.policy)
        if contents.supersedes is not None:
            yield blob_key(contents.supersedes)


def _former(store: Store, candidate: Candidate) -> Iterator[str]:
    """Keys that the candidate's former records name."""
    while candidate.supersedes is not None:
        key = blob_key(candidate.supersedes)
        candidate = parse(Candidate, channels.read_blob(store, candidate.supersedes, "a former record"), address(store, key))
        yield from _blobs(candidate)
