"""Killed or out of disk at any moment, the same command finishes the work and repeats nothing."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from editors.errors import StoreError
from tasks import channel, ledger
from tasks.manifest import Cause, channel_key
from tasks.publish import point, rollback
from tasks.s3_server import embedded_s3
from tasks.store import Store
from tests.tasks.release_line import (
    ADA,
    CHANNEL,
    MODEL,
    Killed,
    Made,
    MortalStore,
    SmallDisk,
    below,
    keys,
    kinds,
    line_of,
    make_edit,
    promote,
    publish_edit,
)

pytestmark = pytest.mark.flow
BACK = Cause("bob", "it answers oddly")


@pytest.fixture
def store(release_store: Store) -> Store:
    return release_store


@pytest.fixture
def edit(store: Store, tmp_path: Path) -> Made:
    return make_edit(tmp_path / "edit", 1)


def test_killed_after_every_single_write_the_same_command_finishes(store: Store, edit: Made) -> None:
    whole, often_killed = below(store, "whole"), below(store, "killed")
    expected = promote(whole, edit)
    before: dict[str, str] = {}
    for _life in range(len(keys(whole)) + 2):
        try:
            moved = promote(MortalStore(often_killed, writes=1), edit)
            break
        except Killed:
            now = {stored.key: stored.etag for stored in often_killed.list()}
            rewritten = {key for key, etag in before.items() if now[key] != etag}
            assert rewritten <= {channel_key(MODEL, CHANNEL)}
            assert len(now) == len(before) + 1 or rewritten
            before = now
    assert keys(often_killed) == keys(whole)
    assert (moved.to_version, moved.files) == (expected.to_version, expected.files)
    assert [kind for kind, _ in kinds(often_killed)] == ["open", "promote"]


@pytest.mark.parametrize("writes", [0, 1], ids=["pointer", "ledger"])
def test_a_rollback_cut_short_is_finished_not_repeated(store: Store, tmp_path: Path, writes: int) -> None:
    _, first, second = line_of(store, tmp_path, 2)
    with pytest.raises(Killed):
        rollback(MortalStore(store, writes), MODEL, CHANNEL, BACK)
    moved = rollback(store, MODEL, CHANNEL, BACK)
    assert (moved.from_version, moved.to_version) == (second, first)
    assert kinds(store)[-2:] == [("promote", second), ("rollback", first)]


def test_the_next_promotion_heals_a_ledger_cut_short(store: Store, edit: Made, tmp_path: Path) -> None:
    promote(store, edit)
    state = channel.read(store, MODEL, CHANNEL)
    second = make_edit(tmp_path / "second", 2, state.manifest, edit.baked.folder)
    release = publish_edit(store, second)
    with pytest.raises(Killed):
        point(MortalStore(store, 1), release, CHANNEL, ADA)
    assert len(kinds(store)) == 2
    state = channel.read(store, MODEL, CHANNEL)
    promote(store, make_edit(tmp_path / "third", 3, state.manifest, second.baked.folder), Cause("cyd", "next"))
    assert [record.entry.by for record in ledger.history(store, MODEL)] == ["ada", "ada", "ada", "cyd"]


def test_a_full_disk_under_the_store_moves_no_pointer(small_disk: SmallDisk, edit: Made, tmp_path: Path) -> None:
    with embedded_s3(small_disk.folder / "home", linger_seconds=0.0) as endpoint:
        store = Store(endpoint.location("full"))
        store.ensure_bucket()
        promote(store, edit)
        before = channel.read(store, MODEL, CHANNEL)
        second = make_edit(tmp_path / "second", 2, before.manifest, edit.baked.folder)
        for size in (2**20, 2**13):
            fill(store, size)
        with pytest.raises(StoreError, match="put s3://full/"):
            promote(store, second)
        assert channel.read(store, MODEL, CHANNEL) == before
    small_disk.resize("64m")
    with embedded_s3(small_disk.folder / "home", linger_seconds=0.0) as endpoint:
        store = Store(endpoint.location("full"))
        assert promote(store, second).from_version == before.pointer.version


def fill(store: Store, size_bytes: int) -> None:
    with suppress(StoreError):
        while True:
            store.put_blob(os.urandom(size_bytes))
