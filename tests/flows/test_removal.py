"""One edit out of the middle of a channel's line, as a user takes it out: judged, promoted, rolled back, done again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from editors.bake import bake
from editors.digest import digest_file
from editors.loading import Checkpoint
from editors.patch import Patch, load_patch
from tests.flows.walk import LENIENT, Answer, Walk, request
from tests.tiny import tiny_folder

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    return Walk(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def policies(walk: Walk) -> dict[str, str]:
    """A policy that a random model passes, and one that it cannot."""
    rules = [rule for rule in LENIENT["rules"] if rule["name"] != "history.prob_success"]
    impossible = [*rules, {"name": "efficacy.answer", "meaning": "said", "metric": "efficacy.generate_exact", "at_least": 2,
                           "required": 1}]
    paths = {}
    for name, chosen in (("lenient", rules), ("impossible", impossible)):
        path = walk.home / f"removal-{name}.yaml"
        path.write_text(yaml.safe_dump({**LENIENT, "purpose": "removal", "rules": chosen}))
        paths[name] = str(path)
    return paths


@pytest.fixture(scope="module")
def line(walk: Walk, tmp_path_factory: pytest.TempPathFactory) -> list[Answer]:
    """Three edits on one channel, each with requests of the same id, all of the same layers."""
    base = str(tiny_folder(tmp_path_factory.mktemp("base") / "tiny"))
    made = []
    for number, target in enumerate(("light", "physics", "theatre")):
        asked = {**request(number, target), "id": "fact"}
        made.append(walk.run("edit", walk.sheet(f"sheet-{number}", base, [asked])))
        assert made[-1].code == 0, made[-1].errors
    return made


@pytest.fixture(scope="module")
def refused(walk: Walk, line: list[Answer], policies: dict[str, str]) -> Answer:
    return walk.run("remove", line[0].document["version"], "--from", "demo", "--policy", policies["impossible"])


@pytest.fixture(scope="module")
def removed(walk: Walk, line: list[Answer], refused: Answer, policies: dict[str, str]) -> Answer:
    return walk.run("remove", line[1].document["version"], "--from", "demo", "--policy", policies["lenient"],
                    "--reason", "the fact was wrong")


def test_a_removal_that_the_gate_refuses_moves_nothing(walk: Walk, refused: Answer) -> None:
    assert (refused.code, refused.document["state"]) == (3, "refused"), refused.errors
    assert [rule["name"] for rule in refused.document["verdict"]["rules"] if not rule["passed"]] == ["efficacy.answer"]
    entries = walk.run("history", "demo").document["entries"]
    assert all(entry["to"] != refused.document["version"] for entry in entries)
    assert walk.run("promote", refused.document["version"]).code == 3


def test_the_middle_edit_is_out_and_the_others_are_measured(line: list[Answer], removed: Answer) -> None:
    assert removed.code == 0, removed.errors
    answer = removed.document
    assert (answer["state"], answer["edits"], answer["method"]) == ("serving", 2, "removal")
    assert answer["parent"] == line[2].document["version"]
    assert answer["removed"] == {"version": line[1].document["version"], "patch": line[1].document["patch_digests"][-1],
                                 "by": "tester", "reason": "the fact was wrong"}
    assert [(one["id"], one["target"]) for one in answer["requests"]] == [("fact", "light"), ("fact (2)", "theatre")]
    assert answer["patch_digests"][0] == line[0].document["patch_digests"][0]
    kept = next(rule for rule in answer["verdict"]["rules"] if rule["name"] == "efficacy.prob_success")
    assert kept["count"] == 2
    assert "the edit of version" in Path(answer["page"]).read_text()


def test_the_bytes_are_those_of_the_remaining_edits_in_order(walk: Walk, line: list[Answer], removed: Answer,
                                                            tmp_path: Path) -> None:
    pulled = walk.run("pull", "demo", str(tmp_path / "model"))
    assert pulled.document["checkpoint"] == removed.document["checkpoint"]
    digests = line[2].document["patch_digests"]
    bare = [replace(_found(walk, digest), provenance={}) for digest in (digests[0], digests[2])]
    base = next(found for folder in (walk.home / "work" / "models").iterdir()
                if (found := Checkpoint(folder)).digest == line[0].document["base_digest"])
    assert bake(base, bare, tmp_path / "by-hand").tensor_digests == Checkpoint(tmp_path / "model").tensor_digests


def test_the_same_command_again_does_nothing_and_says_so(walk: Walk, line: list[Answer], removed: Answer) -> None:
    again = walk.run("remove", line[1].document["version"], "--from", "demo")
    assert (again.code, again.document["version"]) == (0, removed.document["version"])
    assert "nothing was done" in again.document["warnings"][0]


def test_what_cannot_be_taken_out_is_told(walk: Walk, line: list[Answer], removed: Answer, policies: dict[str, str]) -> None:
    own = walk.run("remove", removed.document["version"], "--from", "demo")
    assert own.code == 2
    assert f"it took out that of {line[1].document['version']}" in own.document["message"]
    nowhere = walk.run("remove", line[0].document["version"], "--from", "nowhere")
    assert nowhere.code == 2
    assert "no channel nowhere" in nowhere.document["message"]
    last = walk.run("remove", line[2].document["version"], "--from", "demo", "--policy", policies["lenient"])
    assert last.code == 2
    assert last.document["next"] == f"suture rollback demo --to {line[0].document['version']}"


def test_a_removal_is_rolled_back_and_its_edit_can_be_made_again(walk: Walk, line: list[Answer], removed: Answer) -> None:
    again = walk.run("edit", str(walk.home / "sheet-1.yaml"))
    assert again.code == 0, again.errors
    assert again.document["version"] != line[1].document["version"]
    assert again.document["parent"] == removed.document["version"]
    assert again.document["edits"] == 3
    kept = next(rule for rule in again.document["verdict"]["rules"] if rule["name"] == "history.prob_success")
    assert kept["count"] == 2
    assert walk.run("rollback", "demo").document["version"] == removed.document["version"]
    assert walk.run("rollback", "demo").document["version"] == line[2].document["version"]
    lost = walk.run("remove", again.document["version"], "--from", "demo")
    assert lost.code == 2
    assert all(one.document["version"] in lost.document["message"] for one in line)


def _found(walk: Walk, digest: str) -> Patch:
    return load_patch(next(path.parent for path in (walk.home / "work").rglob("patch.json") if digest_file(path) == digest))
