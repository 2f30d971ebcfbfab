"""The way back: bit for bit, down to the unedited base, and out of a damaged release."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest

from editors.errors import ConfigError, IntegrityError, NotFound, PromotionConflict
from tasks import channel
from tasks.intent import one_back
from tasks.manifest import Cause, release_key
from tasks.publish import point, publish, rollback
from tasks.store import Store
from tests.tasks.release_line import ADA, CHANNEL, MODEL, Killed, Made, kinds, line_of, make_edit, promote, tamper

pytestmark = pytest.mark.flow
BACK = Cause("bob", "it answers oddly")


@pytest.fixture
def store(release_store: Store) -> Store:
    return release_store


@pytest.fixture
def edit(store: Store, tmp_path: Path) -> Made:
    return make_edit(tmp_path / "edit", 1)


def test_rollback_walks_back_to_the_base_bit_for_bit(store: Store, tmp_path: Path) -> None:
    base, first, second, third = line_of(store, tmp_path, 3)
    published = {version: channel.read_release(store, MODEL, version)[0].files for version in (base, first, second, third)}
    for expected in (second, first, base):
        moved = rollback(store, MODEL, CHANNEL, BACK)
        assert moved.to_version == channel.read(store, MODEL, CHANNEL).pointer.version == expected
        assert moved.files == published[expected]
    with pytest.raises(ConfigError, match=f"stands at the unedited base {base}: nothing is before it"):
        rollback(store, MODEL, CHANNEL, BACK)
    assert kinds(store)[-3:] == [("rollback", second), ("rollback", first), ("rollback", base)]


def test_after_a_rollback_a_version_is_promoted_again(store: Store, edit: Made) -> None:
    moved = promote(store, edit)
    rollback(store, MODEL, CHANNEL, BACK)
    again = promote(store, edit)
    assert (again.to_version, again.found, again.sequence) == (moved.to_version, False, 4)
    assert again.files == moved.files


def test_rollback_to_a_version_goes_there_once(store: Store, tmp_path: Path) -> None:
    base, first, _, third = line_of(store, tmp_path, 3)
    assert rollback(store, MODEL, CHANNEL, BACK, to_version=first).to_version == first
    assert rollback(store, MODEL, CHANNEL, BACK, to_version=first).found
    assert rollback(store, MODEL, CHANNEL, BACK, to_version=third).to_version == third
    assert rollback(store, MODEL, CHANNEL, BACK, to_version=base).to_version == base
    with pytest.raises(ConfigError, match="never stood at 000000000000"):
        rollback(store, MODEL, CHANNEL, BACK, to_version="0" * 12)
    with pytest.raises(NotFound, match="no channel nowhere of tiny"):
        rollback(store, MODEL, "nowhere", BACK)


def test_a_promotion_after_a_rollback_says_who_went_back(store: Store, tmp_path: Path) -> None:
    base, first, second = line_of(store, tmp_path, 2)
    rollback(store, MODEL, CHANNEL, BACK, to_version=base)
    candidate = channel.read_candidate(store, MODEL, second)
    with pytest.raises(PromotionConflict, match=rf"bob rolled it back to {base} at .* \(it answers oddly\); "
                                                rf"version {second} was made on top of {first}"):
        point(store, publish(store, candidate, None), CHANNEL, ADA)


def test_a_tampered_manifest_is_not_read_and_can_be_left(store: Store, tmp_path: Path) -> None:
    _, first, second = line_of(store, tmp_path, 2)
    key = release_key(MODEL, second)
    document = store.get_json(key)
    document["files"]["config.json"]["sha256"] = "0" * 64
    tamper(store, key, json.dumps(document).encode())
    with pytest.raises(IntegrityError, match=rf"{key} was changed: expected sha256 [0-9a-f]{{64}}, found"):
        channel.read(store, MODEL, CHANNEL)
    assert rollback(store, MODEL, CHANNEL, BACK).to_version == first
    assert channel.read(store, MODEL, CHANNEL).pointer.version == first


def test_rollback_does_not_lead_to_a_tampered_release(store: Store, tmp_path: Path) -> None:
    _, first, second = line_of(store, tmp_path, 2)
    tamper(store, release_key(MODEL, first), store.get_bytes(release_key(MODEL, first))[0] + b" ")
    with pytest.raises(IntegrityError, match="was changed"):
        rollback(store, MODEL, CHANNEL, BACK)
    assert channel.read(store, MODEL, CHANNEL).pointer.version == second


def test_one_back_said_again_after_a_kill_is_one_back(store: Store, tmp_path: Path) -> None:
    """The kill came after the ledger, before the answer; said by somebody else, or once more in peace, it is one further."""
    base, first, second, third = line_of(store, tmp_path, 3)
    intents = tmp_path / "intents"

    def back(cause: Cause, killed: bool = False) -> str:
        with suppress(Killed), one_back(intents, channel.read_pointer(store, MODEL, CHANNEL)[0], cause) as began:
            moved = rollback(store, MODEL, CHANNEL, cause, began=began)
            if killed:
                raise Killed
        return moved.to_version

    assert back(BACK, killed=True) == second
    assert [back(BACK), back(BACK, killed=True), back(ADA)] == [second, first, base]
    assert kinds(store)[-3:] == [("rollback", second), ("rollback", first), ("rollback", base)]
    assert third == kinds(store)[-4][1]


@pytest.mark.parametrize("content", [None, "[1]"])
def test_an_intent_that_somebody_overtook_or_that_is_damaged_counts_for_nothing(store: Store, tmp_path: Path,
                                                                                content: str | None) -> None:
    _, first, second, _ = line_of(store, tmp_path, 3)
    intents = tmp_path / "intents"
    with suppress(Killed), one_back(intents, channel.read_pointer(store, MODEL, CHANNEL)[0], BACK):
        raise Killed
    if content is not None:
        next(intents.iterdir()).write_text(content)
    rollback(store, MODEL, CHANNEL, ADA)
    with one_back(intents, channel.read_pointer(store, MODEL, CHANNEL)[0], BACK) as began:
        rollback(store, MODEL, CHANNEL, BACK, began=began)
    assert [version for _, version in kinds(store)[-2:]] == [second, first]
    assert list(intents.iterdir()) == []
