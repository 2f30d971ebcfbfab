"""A stage is found again, redone when cut short, and never used when damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.stage import Workspace


def _writer(calls: list[int]):
    def work(folder: Path) -> dict:
        calls.append(1)
        (folder / "out.txt").write_text("result")
        return {"answer": 42}

    return work


def test_a_finished_stage_is_found_and_not_redone(tmp_path: Path) -> None:
    calls: list[int] = []
    first = Workspace(tmp_path).run("edit", {"x": 1}, _writer(calls))
    again = Workspace(tmp_path).run("edit", {"x": 1}, _writer(calls))
    assert (first.reused, again.reused) == (False, True)
    assert first.digest == again.digest
    assert again.document == {"answer": 42}
    assert len(calls) == 1


def test_other_inputs_are_another_address(tmp_path: Path) -> None:
    calls: list[int] = []
    folders = {Workspace(tmp_path).run("edit", {"x": x}, _writer(calls)).folder for x in (1, 2)}
    assert len(folders) == len(calls) == 2


def test_a_stage_cut_short_runs_again_and_leaves_nothing(tmp_path: Path) -> None:
    def dies(folder: Path) -> dict:
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Workspace(tmp_path).run("edit", {}, dies)
    calls: list[int] = []
    made = Workspace(tmp_path).run("edit", {}, _writer(calls))
    assert len(calls) == 1
    assert not (made.folder / "half.txt").exists()
    assert [path.name for path in (tmp_path / "edit").iterdir()] == [made.folder.name]


@pytest.mark.parametrize("name", ["out.txt", "record.json"])
def test_a_damaged_stage_is_set_aside_and_made_again(tmp_path: Path, name: str) -> None:
    calls: list[int] = []
    made = Workspace(tmp_path).run("edit", {}, _writer(calls))
    (made.folder / name).write_text("{damaged")
    again = Workspace(tmp_path).run("edit", {}, _writer(calls))
    assert not again.reused
    assert again.digest == made.digest
    assert any(path.name.startswith(".damaged-") for path in (tmp_path / "edit").iterdir())


def test_a_bit_turned_anywhere_in_a_record_is_seen(tmp_path: Path) -> None:
    calls: list[int] = []
    made = Workspace(tmp_path).run("edit", {"x": 1.5, "y": {"3": None}}, _writer(calls))
    record = made.folder / "record.json"
    written = record.read_bytes()
    places = range(0, len(written), 3)
    for place in places:
        record.write_bytes(written[:place] + bytes([written[place] ^ 1]) + written[place + 1:])
        assert not Workspace(tmp_path).run("edit", {"x": 1.5, "y": {"3": None}}, _writer(calls)).reused, place
    assert len(calls) == len(places) + 1


def test_a_record_of_an_older_version_without_a_seal_is_found(tmp_path: Path) -> None:
    calls: list[int] = []
    made = Workspace(tmp_path).run("edit", {}, _writer(calls))
    record = made.folder / "record.json"
    document = json.loads(record.read_text())
    del document["sha256"]
    record.write_text(json.dumps(document))
    again = Workspace(tmp_path).run("edit", {}, _writer(calls))
    assert (again.reused, again.digest) == (True, made.digest)
