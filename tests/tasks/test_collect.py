"""Garbage goes, and nothing that a release or an open candidate names, whatever runs at the same time."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from editors.errors import ConfigError, IntegrityError, NotFound
from tasks import channel
from tasks.candidate import upload
from tasks.collect import Ages, Collected, collect
from tasks.decisions import decide
from tasks.manifest import Cause, candidate_key, release_key
from tasks.publish import rollback
from tasks.pull import pull
from tasks.store import Store, blob_key
from tasks.store_errors import TRASH
from tasks.store_location import StoredObject
from tests.tasks.release_line import (
    ADA,
    CHANNEL,
    MODEL,
    judged_by,
    keys,
    line_of,
    make_edit,
    promote,
    publish_edit,
    same_connection,
    stage,
    tamper,
)

pytestmark = pytest.mark.flow
AGES = Ages(candidate_days=2, grace_hours=24)


class Later(Store):
    """The real store, looked at some days from now."""

    def __init__(self, store: Store, days: float) -> None:
        super().__init__(store.location)
        same_connection(self, store)
        self.days = days

    def clock(self) -> datetime:
        return super().clock() + timedelta(days=self.days)


class Aged(Store):
    """The real store, all of whose objects in place seem three days old; what lies aside has its true age."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.location)
        same_connection(self, store)

    def list(self, prefix: str = "") -> tuple[StoredObject, ...]:
        return tuple(stored if stored.key.startswith(TRASH) else replace(stored, modified=stored.modified - timedelta(days=3))
                     for stored in super().list(prefix))


def collected(store: Store, days: float = 3, *, dry_run: bool = False) -> Collected:
    return collect(Later(store, days), AGES, dry_run=dry_run)


def in_place(store: Store) -> set[str]:
    return {key for key in keys(store) if not key.startswith(TRASH)}


def test_the_store_tells_the_time(release_store: Store) -> None:
    assert abs(release_store.clock() - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_line_of_releases_loses_nothing(release_store: Store, tmp_path: Path) -> None:
    versions = line_of(release_store, tmp_path, 3)
    before = keys(release_store)
    found = collected(release_store, 4000)
    assert (found.put_aside, found.removed, found.restored) == ((), (), ())
    assert keys(release_store) == before
    for version in reversed(versions[:-1]):
        assert rollback(release_store, MODEL, CHANNEL, ADA).to_version == version
    assert pull(release_store, channel.read_version(release_store, MODEL, versions[-1]), tmp_path / "pulled").files


def test_a_refused_candidate_goes_when_it_is_old_enough(release_store: Store, tmp_path: Path) -> None:
    promote(release_store, make_edit(tmp_path / "kept", 1))
    before = keys(release_store)
    refused = stage(release_store, make_edit(tmp_path / "refused", 2, passed=False))
    assert collected(release_store, 1.5).put_aside == ()
    told = collected(release_store, dry_run=True)
    assert "the gate refused it" in {one.why for one in told.put_aside}
    assert keys(release_store) > before
    assert candidate_key(MODEL, refused.version) in keys(release_store)
    done = collected(release_store)
    assert {one.key for one in done.put_aside} == {one.key for one in told.put_aside} == {
        key.removeprefix(TRASH) for key in keys(release_store) if key.startswith(TRASH)}
    assert in_place(release_store) == before
    assert collected(release_store).removed != ()
    assert keys(release_store) == before


def test_what_lies_aside_stays_for_the_grace_period(release_store: Store, tmp_path: Path) -> None:
    stage(release_store, make_edit(tmp_path / "refused", 2, passed=False))
    collected(release_store)
    assert collected(release_store, 0.9).removed == ()
    assert collected(release_store, 1.1).removed != ()


def test_an_open_candidate_stays_and_one_that_was_passed_by_goes(release_store: Store, tmp_path: Path) -> None:
    first, second = make_edit(tmp_path / "first", 1), make_edit(tmp_path / "second", 2)
    waiting, other = stage(release_store, first), stage(release_store, second)
    assert collected(release_store).put_aside == ()
    promote(release_store, second)
    found = {one.key: one.why for one in collected(release_store).put_aside}
    assert found[candidate_key(MODEL, waiting.version)] == f"channel {CHANNEL} has moved on to {other.version}"
    assert candidate_key(MODEL, other.version) not in found


def test_what_a_person_refused_goes(release_store: Store, tmp_path: Path) -> None:
    candidate = stage(release_store, make_edit(tmp_path / "edit", 1))
    decide(release_store, MODEL, candidate.digest, "refuse", Cause("bob", "no"))
    assert "bob refused it" in {one.why for one in collected(release_store).put_aside}


def test_the_former_records_of_a_candidate_are_named_by_it(release_store: Store, tmp_path: Path) -> None:
    edit = make_edit(tmp_path / "edit", 1)
    stage(release_store, edit)
    renewed = stage(release_store, judged_by(edit, "8" * 64, passed=True))
    assert renewed.supersedes is not None
    assert collected(release_store).put_aside == ()


def test_a_record_that_cannot_be_read_stops_it_before_anything_is_touched(release_store: Store, tmp_path: Path) -> None:
    stage(release_store, make_edit(tmp_path / "refused", 2, passed=False))
    version = publish_edit(release_store, make_edit(tmp_path / "edit", 1)).version
    tamper(release_store, release_key(MODEL, version), b"{}")
    before = keys(release_store)
    with pytest.raises(IntegrityError, match="is not a sound ReleaseManifest"):
        collected(release_store)
    assert keys(release_store) == before


def test_a_publish_that_saw_its_blobs_before_they_were_put_aside_is_whole(release_store: Store, tmp_path: Path) -> None:
    """The publish finds old blobs that nothing names; all of the collection runs; then it writes the record."""
    made = make_edit(tmp_path / "edit", 1)
    candidate = stage(release_store, made)
    upload(release_store, candidate, made.baked.folder)
    record, _ = release_store.get_bytes(candidate_key(MODEL, candidate.version))
    release_store.remove(candidate_key(MODEL, candidate.version))
    collected(release_store)
    assert not [key for key in in_place(release_store) if key.startswith("blobs/")]
    release_store.put_new(candidate_key(MODEL, candidate.version), record)
    assert pull(release_store, candidate, tmp_path / "at-once").checkpoint == candidate.checkpoint
    assert channel.read_batches(release_store, candidate)
    found = collected(release_store, 400)
    assert blob_key(candidate.verdict.sha256) in found.restored
    assert found.removed == ()
    assert not [key for key in keys(release_store) if key.startswith(TRASH)]
    assert pull(release_store, candidate, tmp_path / "later").checkpoint == candidate.checkpoint


def test_releases_published_while_it_runs_are_whole(release_store: Store, tmp_path: Path) -> None:
    """Collections run one upon another, and take every object in place for old, those just written as well."""
    stop = threading.Event()

    def keep_collecting() -> None:
        while not stop.is_set():
            # a record may go between the listing and its reading; the next run begins anew
            with suppress(NotFound):
                collect(Aged(release_store), AGES, dry_run=False)

    collecting = threading.Thread(target=keep_collecting)
    collecting.start()
    try:
        versions = line_of(release_store, tmp_path, 5)
    finally:
        stop.set()
        collecting.join()
    last = collect(Aged(release_store), AGES, dry_run=False)
    assert last.removed == ()
    for version in versions:
        contents = channel.read_version(release_store, MODEL, version)
        assert pull(release_store, contents, tmp_path / version).checkpoint == contents.checkpoint
        assert len(channel.read_batches(release_store, contents)) == versions.index(version)
    named = {blob_key(blob.sha256) for blob in contents.files.values()}
    assert named <= in_place(release_store)


def test_ages_have_a_range() -> None:
    with pytest.raises(ConfigError, match="--grace must be 1 hour or more, got 0"):
        Ages(grace_hours=0)
    with pytest.raises(ConfigError, match="--older-than must be 0 days or more, got -1"):
        Ages(candidate_days=-1)
