"""The inbox as a user runs it: real edits of a tiny model; killed and raced workers; sheets that are wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from editors.errors import SheetError, StoreError
from flows.inbox import work_through
from tasks.inbox import Terms
from tasks.inbox_folder import FolderInbox
from tests.flows.walk import Walk, request
from tests.tiny import tiny_folder

ANSWER: dict[str, Any] = {"passed": True, "version": "3f9a1c2b7d04", "state": "pending", "verdict": {"rules": []}}


def dropped(folder: Path, *names: str) -> FolderInbox:
    for name in names:
        (folder / name).write_text("purpose: update")
    return FolderInbox(folder, Terms(settle_seconds=0))


def beside(folder: Path, outcome: str) -> dict[str, Any]:
    (found,) = (folder / outcome).glob("*.json")
    return json.loads(found.read_text())


def test_a_wrong_sheet_is_refused_with_its_reason_and_the_next_goes_on(tmp_path: Path) -> None:
    def edit(address: str) -> dict[str, Any]:
        if address.endswith("a.yaml"):
            raise SheetError("line 3: no target", "mend these lines")
        return ANSWER

    answer = work_through(dropped(tmp_path, "a.yaml", "b.yaml"), edit, most=9)
    assert [one["sheet"] for one in answer["done"]] == ["b.yaml"]
    assert answer["refused"] == [{"sheet": "a.yaml", "version": None, "state": None, "reason": "line 3: no target"}]
    assert beside(tmp_path, "refused") == {"sheet": "a.yaml", "passed": False, "error": "SheetError",
                                           "reason": "line 3: no target", "next": "mend these lines"}


def test_what_the_gate_refused_says_which_rule_and_what_it_saw(tmp_path: Path) -> None:
    rules = [{"name": "efficacy.generate_exact", "observed": 0.5, "limit": ">= 0.95", "passed": False, "severity": "critical"},
             {"name": "fluency", "observed": 1, "limit": ">= 2", "passed": False, "severity": "warning"}]
    work_through(dropped(tmp_path, "a.yaml"), lambda _: {**ANSWER, "passed": False, "verdict": {"rules": rules}}, most=9)
    assert beside(tmp_path, "refused")["reason"] == "the gate refused it: efficacy.generate_exact: 0.5, wanted >= 0.95"


def test_a_store_that_fails_costs_the_sheet_nothing(tmp_path: Path) -> None:
    def edit(_: str) -> dict[str, Any]:
        raise StoreError("the store does not answer", "try again")

    box = dropped(tmp_path, "a.yaml", "b.yaml")
    for _ in range(5):
        answer = work_through(box, edit, most=9)
        assert answer["left"] == [{"sheet": "a.yaml", "reason": "the store does not answer", "next": "try again"}]
    assert work_through(box, lambda _: ANSWER, most=9)["refused"] == []
    assert len(list((tmp_path / "done").glob("*.yaml"))) == 2


@pytest.mark.parametrize(("stop", "attempts"), [(KeyboardInterrupt, 1), (RuntimeError, 2)])
def test_who_is_stopped_gives_the_sheet_back_and_who_fails_spends_an_attempt(
    tmp_path: Path, stop: type[BaseException], attempts: int
) -> None:
    def edit(_: str) -> dict[str, Any]:
        raise stop

    box = dropped(tmp_path, "a.yaml")
    with pytest.raises(stop):
        work_through(box, edit, most=9)
    (held,) = (tmp_path / "claimed").iterdir()
    os.utime(held, (0, 0))
    (ticket,) = box.waiting()
    assert box.claim(ticket).attempt == attempts


def test_a_sheet_that_kills_its_workers_is_refused(tmp_path: Path) -> None:
    box = dropped(tmp_path, "a.yaml")
    for _ in range(3):
        os.utime(box.claim(box.waiting()[0]).path, (0, 0))
    answer = work_through(box, lambda _: pytest.fail("it was tried a fourth time"), most=9)
    assert answer["refused"][0]["reason"] == "3 workers died over this sheet"


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    return Walk(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_folder(tmp_path_factory.mktemp("base") / "tiny"))


def drop(walk: Walk, folder: Path, name: str, base: str, number: int, target: str) -> None:
    """Write the sheet elsewhere and rename it into the inbox, as one should."""
    folder.mkdir(exist_ok=True)
    sheet = Path(walk.sheet(name, base, [request(number, target)]))
    os.utime(sheet, (0, 0))
    sheet.rename(folder / sheet.name)


@pytest.mark.flow
def test_a_killed_workers_sheet_and_two_racing_workers_end_in_one_edit_each(walk: Walk, base: str, tmp_path: Path) -> None:
    folder = tmp_path / "inbox"
    drop(walk, folder, "first", base, 0, "light")
    worker = subprocess.Popen(walk.command("inbox", str(folder), "--every", "0.2"), env=walk.environment, cwd=walk.home,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 300
    while not list((walk.home / "work").glob("observe*/*/record.json")) and time.monotonic() < deadline:
        assert worker.poll() is None, "the worker ended by itself"
        time.sleep(0.02)
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    (held,) = (folder / "claimed").iterdir()
    os.utime(held, (0, 0))
    drop(walk, folder, "second", base, 1, "physics")
    (folder / "wrong.yaml").write_text("purpose: update\nrequests: []\n")
    os.utime(folder / "wrong.yaml", (0, 0))
    racers = [subprocess.Popen(walk.command("inbox", str(folder), "--once", "--json"), env=walk.environment, cwd=walk.home,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(2)]
    answers = [json.loads(racer.communicate(timeout=300)[0]) for racer in racers]
    if any(answer["left"] for answer in answers):
        # two edits at once start from one parent: the second to arrive at the channel is made again on the first
        answers.append(walk.run("inbox", str(folder), "--once").document)
    assert sorted(one["sheet"] for answer in answers for one in answer["done"]) == ["first.yaml", "second.yaml"]
    assert [one["sheet"] for answer in answers for one in answer["refused"]] == ["wrong.yaml"]
    entries = walk.run("history", "demo").document["entries"]
    assert [entry["action"] for entry in entries] == ["open", "promote", "promote"]
    assert sorted(path.name.split(".", 1)[1] for path in (folder / "done").iterdir()) == [
        "first.yaml", "first.yaml.json", "second.yaml", "second.yaml.json"]
    assert list((folder / "claimed").iterdir()) == []
