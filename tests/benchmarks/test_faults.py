"""A few faults of each kind end well, and faults that do not are counted as such."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import torch
import tqdm

import flows.edit
import flows.promote
from benchmarks.faults import summary, table_of
from benchmarks.faults_cases import Case, finish, moment, reference
from benchmarks.faults_commands import Command, commands, lay_out
from benchmarks.faults_disk import full_disks
from benchmarks.faults_kills import kills
from benchmarks.faults_lives import Plan, live
from benchmarks.faults_proxy import Wrong
from benchmarks.faults_rot import rot
from benchmarks.faults_wire import _through, wires
from benchmarks.faults_world import World, flip, world

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    before = process()
    with world(tmp_path_factory.mktemp("faults")) as made:
        yield made
    assert process() == before, "tests after this one would run in another process than their own"


def process() -> tuple[object, ...]:
    """What a world changes in this process."""
    ours = ("SUTURE_", "PREFECT_", "MLFLOW_", "AWS_")
    settings = {name: value for name, value in os.environ.items() if name.startswith(ours)}
    return (flows.edit.edit, flows.promote.publish_version, boto3.session.Session, torch.get_num_threads(),
            tqdm.tqdm.monitor_interval, gc.get_freeze_count(), settings)


@pytest.fixture(scope="module")
def made(here: World) -> dict[str, Command]:
    return commands(here, lay_out(here))


def test_a_few_faults_of_each_kind_end_well(here: World, made: dict[str, Command]) -> None:
    few = {name: made[name] for name in ("promote", "rollback one back", "gc", "inbox in a bucket", "pull")}
    cases = [*kills(here, few, quick=True), *wires(here, few, quick=True), *rot(here, made, quick=True)]
    assert len(cases) >= 19
    told = summary(cases)
    assert (told["wrong"], told["lost"], told["torn"]) == (0, 0, 0), told["failures"]
    assert table_of(cases).row_count == len({(case.kind, case.command) for case in cases}) + 1


def test_what_is_lost_and_torn_is_counted(here: World, made: dict[str, Command]) -> None:
    """Somebody takes a weight away from what the channel serves, and an entry out of the ledger."""
    command = made["pull"]
    expected = reference(here, command)
    here.restore(command.state)
    kept = moment(here)
    served = here.line.get_json("models/tiny/channels/demo.json")["version"]
    blob = here.line.get_json(f"models/tiny/releases/{served}.json")["files"]["config.json"]["sha256"]
    here.line.remove(f"blobs/sha256/{blob}")
    here.line.remove("models/tiny/ledger/00000003.json")
    wrong, _ = finish(here, command, expected, kept)
    case = Case("kill", "pull", "nowhere", tuple(wrong))
    assert case.has("torn")
    assert case.has("lost") or case.has("unfinished")
    assert summary([case])["torn"] == 1


def test_a_life_is_killed_where_it_is_told_to_be(here: World, tmp_path: Path) -> None:
    def act() -> str:
        (tmp_path / "a").write_text("x")
        (tmp_path / "a").replace(tmp_path / "b")
        return "done"

    whole = live(act, tmp_path / "life")
    assert (whole.ended, whole.answer, whole.boundaries) == ("answered", "done", ("before replace b", "after replace b"))
    (tmp_path / "b").unlink()
    killed = live(act, tmp_path / "life", Plan(1))
    assert (killed.ended, (tmp_path / "b").exists()) == ("killed", False)


def test_a_store_that_stays_away_ends_in_a_typed_error(here: World, made: dict[str, Command]) -> None:
    here.restore("two")
    life = here.live(_through(here, made["pull"].act, Wrong(2, "down")))
    assert (life.ended, life.answer) == ("refused", "StoreError")
    assert "HTTP 503 ServiceUnavailable" in life.error


def test_a_turned_bit_is_one_bit() -> None:
    assert flip(b"abc", 4) == b"acc"[:1] + bytes([ord("b") ^ 1]) + b"c"


def test_a_full_disk_ends_well(here: World, made: dict[str, Command]) -> None:
    cases = list(full_disks(here, {"pull": made["pull"]}, quick=True))
    if not cases:
        pytest.skip("mounting a small disk needs root")
    assert [case.wrong for case in cases if case.wrong] == []
