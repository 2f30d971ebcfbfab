"""Inboxes in a folder and on a real S3 server: each sheet once, whoever races and whoever dies."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from editors.errors import ConfigError
from flows.inbox import work_through
from tasks.inbox import CLAIMED, Claim, Inbox, Terms, is_sheet, kept
from tasks.inbox_bucket import BucketInbox
from tasks.inbox_folder import FolderClaim, FolderInbox
from tasks.s3_server import S3Endpoint
from tasks.store import Store

RACERS = 8
AT_ONCE = Terms(settle_seconds=0)
ANSWER = {"version": "3f9a1c2b7d04", "passed": True}


@dataclass(frozen=True)
class Place:
    """An inbox with what tests need to look behind it."""

    inbox: Inbox
    drop: Callable[[str, str], None]
    files: Callable[[], dict[str, str]]

    def abandoned(self) -> Claim:
        """A claim whose worker showed no sign of life for longer than its lease."""
        if isinstance(self.inbox, FolderInbox):
            claim = take(self.inbox)
            os.utime(claim.address, (0, 0))
            return claim
        return take(replace(self.inbox, terms=Terms(lease_seconds=1e-9)))

    def below(self, folder: str) -> list[str]:
        return [name for name in self.files() if name.startswith(f"{folder}/")]


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.flow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return folder_place(tmp_path) if request.param == "folder" else bucket_place(request)


def folder_place(root: Path) -> Place:
    return Place(FolderInbox(root, AT_ONCE), lambda name, text: (root / name).write_text(text) and None, lambda: {
        str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()})


def bucket_place(request: pytest.FixtureRequest) -> Place:
    endpoint: S3Endpoint = request.getfixturevalue("s3_http")
    store = Store(endpoint.location(request.getfixturevalue("bucket"), "sheets"))
    store.ensure_bucket()
    return Place(BucketInbox(store, AT_ONCE), lambda name, text: store._put(name, text.encode()) and None, lambda: {
        stored.key: store.get_bytes(stored.key)[0].decode() for stored in store.list() if not stored.key.startswith("probes/")})


def abandon_again(claim: Claim) -> None:
    """Finishing renewed the lease."""
    if isinstance(claim, FolderClaim):
        os.utime(claim.address, (0, 0))


def take(inbox: Inbox) -> Claim:
    ticket, *_ = inbox.waiting()
    claim = inbox.claim(ticket)
    assert claim is not None
    return claim


def test_a_sheet_is_claimed_moved_and_lies_beside_its_answer(place: Place) -> None:
    place.drop("b.yaml", "purpose: b")
    place.drop("a.yaml", "purpose: a")
    place.drop("notes.txt", "no sheet")
    place.drop(".c.yaml", "an upload that is not whole")
    assert place.inbox.waiting() == ("a.yaml", "b.yaml")
    claim = take(place.inbox)
    assert (claim.name, claim.attempt) == ("a.yaml", 1)
    assert place.inbox.waiting() == ("b.yaml",)
    assert claim.answered() is None
    assert claim.finish("done", ANSWER)
    answer, sheet = sorted(place.below("done"), key=len, reverse=True)
    assert answer == f"{sheet}.json"
    assert sheet.endswith("Z.a.yaml")
    assert (place.files()[sheet], json.loads(place.files()[answer])) == ("purpose: a", ANSWER)
    assert [name for name, text in place.files().items() if text == "purpose: a"] == [sheet], "it lies in one place only"
    assert place.below(CLAIMED) == []
    assert take(place.inbox).finish("refused", {"passed": False})
    assert len(place.below("refused")) == 2
    assert place.inbox.waiting() == ()


def test_of_many_workers_one_gets_the_sheet(place: Place) -> None:
    barrier = threading.Barrier(RACERS)
    for number in range(4):
        place.drop(f"{number}.yaml", "purpose: update")

        def claim(racer: int, name: str = f"{number}.yaml") -> Claim | None:
            barrier.wait()
            return place.inbox.claim(name)

        with ThreadPoolExecutor(RACERS) as pool:
            won = [found for found in pool.map(claim, range(RACERS)) if found]
        assert len(won) == 1
        assert won[0].finish("done", {})
    assert len(place.below("done")) == 8


def test_two_workers_at_once_carry_out_each_sheet_once(place: Place) -> None:
    for number in range(6):
        place.drop(f"{number}.yaml", f"purpose: {number}")
    both, carried_out = threading.Barrier(2), []

    def edit(address: str) -> dict[str, Any]:
        carried_out.append(address.removesuffix(".yaml")[-1])
        return {"passed": True, "verdict": {"rules": []}}

    def work(_: int) -> dict[str, Any]:
        both.wait()
        return work_through(place.inbox, edit, most=100)

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(work, range(2)))
    assert sorted(carried_out) == list("012345")
    assert sorted(one["sheet"] for answer in answers for one in answer["done"]) == [f"{number}.yaml" for number in range(6)]
    assert len(place.below("done")) == 12
    assert place.below(CLAIMED) == []


def test_a_dead_workers_sheet_is_claimed_again_by_one(place: Place) -> None:
    place.drop("a.yaml", "purpose: a")
    first = place.abandoned()
    barrier = threading.Barrier(RACERS)
    ticket, = place.inbox.waiting()

    def claim(racer: int) -> Claim | None:
        barrier.wait()
        return place.inbox.claim(ticket)

    with ThreadPoolExecutor(RACERS) as pool:
        won = [found for found in pool.map(claim, range(RACERS)) if found]
    assert [found.attempt for found in won] == [2]
    assert not first.renew()
    assert not first.finish("done", {"who": "the dead one"})
    assert won[0].finish("done", {"who": "the second"})
    answer = next(name for name in place.below("done") if name.endswith(".json"))
    assert json.loads(place.files()[answer]) == {"who": "the second"}
    assert len(place.below("done")) == 2


def test_who_dies_between_answer_and_move_leaves_nothing_to_edit(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.drop("a.yaml", "purpose: a")
    first = place.abandoned()

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", dies)
        patched.setattr(Store, "remove", dies)
        with pytest.raises(KeyboardInterrupt):
            first.finish("done", ANSWER)
    abandon_again(first)
    second = take(place.inbox)
    assert second.answered() == ("done", ANSWER)
    assert second.finish("done", {"never": "written"})
    assert len(place.below("done")) == 2
    assert place.below(CLAIMED) == []
    assert place.inbox.waiting() == ()


def test_a_sheet_given_back_waits_at_once_and_loses_no_attempt(place: Place) -> None:
    place.drop("a.yaml", "purpose: a")
    take(place.inbox).give_back()
    again = take(place.inbox)
    assert again.attempt == 1
    assert again.renew()
    assert place.inbox.waiting() == ()


def test_a_sheet_dropped_again_under_its_name_is_another_one(place: Place) -> None:
    for text in ("purpose: a", "purpose: b"):
        place.drop("a.yaml", text)
        assert take(place.inbox).finish("done", {"text": text})
    texts = [text for name, text in place.files().items() if name.endswith("Z.a.yaml")]
    assert texts == ["purpose: a", "purpose: b"]


def test_a_claim_is_renewed_while_the_work_runs(place: Place) -> None:
    place.drop("a.yaml", "purpose: a")
    claim, beats, enough = take(place.inbox), [], threading.Event()
    renew = claim.renew

    def counted() -> bool:
        beats.append(renew())
        if len(beats) == 3:
            enough.set()
        return beats[-1]

    claim.renew = counted  # type: ignore[method-assign]
    with kept(claim, every_seconds=0.01):
        assert enough.wait(60)
    assert all(beats)
    assert claim.finish("done", {})


@pytest.mark.flow
def test_a_sheet_replaced_while_it_is_edited_stays_and_waits(request: pytest.FixtureRequest) -> None:
    place = bucket_place(request)
    place.drop("a.yaml", "purpose: a")
    claim = take(place.inbox)
    place.drop("a.yaml", "purpose: b")
    assert claim.finish("done", {})
    assert place.files()["a.yaml"] == "purpose: b"
    assert [name for name in place.below("done") if not name.endswith(".json")] == []
    assert place.inbox.waiting() == ("a.yaml",)


def test_a_file_that_still_changes_is_left_alone(tmp_path: Path) -> None:
    inbox = FolderInbox(tmp_path, Terms(settle_seconds=3600))
    (tmp_path / "a.yaml").write_text("purpose")
    assert inbox.waiting() == ()
    os.utime(tmp_path / "a.yaml", (0, 0))
    assert inbox.waiting() == ("a.yaml",)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used: No such file") as caught:
        FolderInbox(tmp_path / "gone").waiting()
    assert caught.value.hint == f"make a folder that you may write to: mkdir {tmp_path / 'gone'}"


def test_terms_that_cannot_be_kept_are_refused() -> None:
    with pytest.raises(ConfigError, match="lease and attempts must be positive"):
        Terms(lease_seconds=0)


@pytest.mark.parametrize(("name", "answer"), [("a.yaml", True), ("A.YML", True), ("a.jsonl", True), ("a.b.json", True),
                                              ("a.txt", False), (".a.yaml", False), ("yaml", False)])
def test_sheets_are_told_by_their_names(name: str, answer: bool) -> None:
    assert is_sheet(name) == answer




def test_an_answer_half_written_is_cleared_away(tmp_path: Path) -> None:
    place = folder_place(tmp_path)
    place.drop("eiffel.yaml", "sheet")
    claim = take(place.inbox)
    (tmp_path / "done").mkdir(exist_ok=True)
    (tmp_path / "done" / f".{claim.since}.eiffel.yaml.json.0a1b2c3d").write_text('{"version": ')
    assert claim.finish("done", ANSWER)
    assert sorted(path.name for path in (tmp_path / "done").iterdir()) == [
        f"{claim.since}.eiffel.yaml", f"{claim.since}.eiffel.yaml.json"]
