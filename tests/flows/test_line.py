"""The whole line as a user walks it: edit, edit on top, refuse, approve, promote, roll back, pull; then killed and raced."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.flows.walk import Answer, Walk, request
from tests.tiny import tiny_folder

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    return Walk(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_folder(tmp_path_factory.mktemp("base") / "tiny"))


@pytest.fixture(scope="module")
def first(walk: Walk, base: str) -> Answer:
    return walk.run("edit", walk.sheet("first", base, [request(0, "light")]))


@pytest.fixture(scope="module")
def second(walk: Walk, base: str, first: Answer) -> Answer:
    return walk.run("edit", walk.sheet("second", base, [request(1, "physics")]))


def test_one_command_leads_from_sheet_to_release(walk: Walk, first: Answer) -> None:
    assert first.code == 0, first.errors
    answer = first.document
    assert answer["passed"] is True
    assert answer["state"] == "serving"
    assert answer["release"]["version"] == answer["version"]
    assert answer["parent"] is None
    assert Path(answer["page"]).read_text().startswith("<!")
    assert {row["role"] for row in answer["transcripts"]} == {"edit", "paraphrase", "neighbour"}
    assert answer["decision"]["by"] == "policy:auto"


def test_the_same_command_again_edits_nothing(walk: Walk, first: Answer) -> None:
    again = walk.run("edit", str(walk.home / "first.yaml"))
    assert again.code == 0
    assert again.document["version"] == first.document["version"]
    assert "nothing was edited" in again.document["warnings"][0]


def test_a_second_edit_builds_on_the_first_and_measures_it_again(first: Answer, second: Answer) -> None:
    assert second.code == 0, second.errors
    assert second.document["parent"] == first.document["version"]
    assert len(second.document["patch_digests"]) == 2
    kept = next(rule for rule in second.document["verdict"]["rules"] if rule["name"] == "history.prob_success")
    assert kept["passed"]
    assert kept["count"] == 1


def test_pull_gives_a_plain_folder_with_the_candidates_logits(walk: Walk, second: Answer, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from editors.loading import Checkpoint

    pulled = walk.run("pull", "demo", str(tmp_path / "model"))
    assert pulled.document["checkpoint"] == second.document["checkpoint"]
    candidate = next(folder for folder in (walk.home / "work" / "models").iterdir()
                     if Checkpoint(folder).digest == second.document["checkpoint"])
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        logits = [AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)(ids).logits
                  for folder in (tmp_path / "model", candidate)]
    assert torch.equal(*logits)
    again = walk.run("pull", "demo", str(tmp_path / "model"))
    assert again.code == 2
    assert "is not empty" in again.document["message"]


def test_rollback_returns_bit_for_bit_and_history_tells(walk: Walk, first: Answer, second: Answer, tmp_path: Path) -> None:
    back = walk.run("rollback", "demo", "--reason", "a complaint")
    assert back.code == 0, back.errors
    assert back.document["version"] == first.document["version"]
    pulled = walk.run("pull", "demo", str(tmp_path / "before"))
    assert pulled.document["checkpoint"] == first.document["checkpoint"]
    entries = walk.run("history", "demo").document["entries"]
    assert [entry["action"] for entry in entries] == ["open", "promote", "promote", "rollback"]
    assert entries[-1]["reason"] == "a complaint"
    forward = walk.run("promote", second.document["version"])
    assert forward.code == 0
    assert forward.document["moved_bytes"] == 0


def test_a_person_must_approve_on_other_channels(walk: Walk, base: str) -> None:
    edited = walk.run("edit", walk.sheet("stable", base, [request(2, "films")], channel="stable"))
    version = edited.document["version"]
    assert (edited.code, edited.document["state"], edited.document["release"]) == (0, "pending", None)
    early = walk.run("promote", version)
    assert early.code == 4
    assert early.document["next"].startswith(f"suture approve {version}")
    assert walk.run("approve", version, "--by", "ann", "--reason", "looked at it").document["decision"] == "approved"
    assert walk.run("promote", version).document["channel"] == "stable"
    shown = walk.run("show", version[:6]).document
    assert (shown["state"], shown["decision"]["by"]) == ("serving", "ann")
    assert walk.run("history", "stable").document["entries"][-1]["reason"] == "approved by ann: looked at it"


def test_a_refused_edit_is_kept_shown_and_never_promoted(walk: Walk, base: str, tmp_path: Path) -> None:
    weak = {"name": "memit", "covariance_weight": 1e9, "contexts": 0}
    sheet = walk.sheet("weak", base, [request(2, "opera")], channel="weak", method=weak, policy=None)
    edited = walk.run("edit", sheet)
    assert (edited.code, edited.document["state"], edited.document["passed"]) == (3, "refused", False)
    version = edited.document["version"]
    assert walk.run("promote", version).code == 3
    assert walk.run("approve", version, "--reason", "please").code == 3
    assert walk.run("pull", "--version", version, str(tmp_path / "refused")).code == 0


def test_dry_run_locate_and_measure_change_nothing(walk: Walk, base: str, second: Answer) -> None:
    before = walk.run("history", "demo").document
    sheet = walk.sheet("look", base, [request(0, "beer")])
    planned = walk.run("edit", sheet, "--dry-run")
    assert planned.code == 0, planned.document
    assert planned.document["estimate"]["memory_bytes"] > 0
    located = walk.run("locate", sheet).document
    assert located["layers"] == [0, 1]
    assert Path(next(item["path"] for item in located["evidence"] if item["kind"] == "picture")).stat().st_size > 1000
    measured = walk.run("measure", str(walk.home / "first.yaml"), "--version", second.document["version"]).document
    assert measured["candidate"] == second.document["version"]
    assert len([row for row in measured["measurements"] if row["metric"] == "efficacy.prob_success"]) == 1
    assert walk.run("history", "demo").document == before


def test_warming_makes_what_edits_read_and_then_nothing(walk: Walk, base: str, second: Answer) -> None:
    first = walk.run("warm", base, "--layers", "1-2")
    assert first.code == 0, first.errors
    made = [(item["what"], item["layer"]) for item in first.document["items"] if item["made"]]
    assert {layer for what, layer in made if what != "spectrum"} == {2}, "the edits made layers 0 and 1"
    assert {layer for what, layer in made if what == "spectrum"} == {1, 2}, "MEMIT asks for none"
    again = walk.run("warm", base, "--layers", "1-2")
    assert [item["path"] for item in again.document["items"]] == [item["path"] for item in first.document["items"]]
    assert not any(item["made"] for item in again.document["items"])
    refused = walk.run("warm", base, "--layers", "9")
    assert (refused.code, refused.document["error"]) == (2, "ConfigError")


def test_a_release_and_a_registered_version_are_bases(walk: Walk, base: str, first: Answer, second: Answer) -> None:
    model = first.document["model"]
    release = f"s3://suture/models/{model}/releases/{first.document['version']}.json"
    plans = [walk.run("edit", walk.sheet(f"base-{number}", reference, [request(0, "beer")], model="other"), "--dry-run")
             for number, reference in enumerate((release, first.document["mlflow"]))]
    expected = first.document["checkpoint"][:12]
    assert [expected in plan.document["plan"]["base"] for plan in plans] == [True, True]


def test_another_base_on_the_same_channel_is_refused(walk: Walk, first: Answer, tmp_path: Path) -> None:
    other = str(tiny_folder(tmp_path / "tiny", seed=5))
    refused = walk.run("edit", walk.sheet("other", other, [request(0, "beer")], model=first.document["model"]))
    assert refused.code == 2
    assert "was built on the base" in refused.document["message"]


@pytest.mark.parametrize(("change", "words"), [
    ({"base": "nowhere/at-all"}, "nowhere/at-all"),
    ({"method": {"name": "memit", "covariance_wait": 3}}, "covariance_weight"),
    ({"layers": [99]}, "99 is not a layer"),
    ({"requests": [{**request(0, "x"), "target": ""}]}, "target is empty"),
    ({"policy": "/no/such/policy.yaml"}, "/no/such/policy.yaml"),
])
def test_bad_sheets_get_one_clear_error(walk: Walk, base: str, change: dict, words: str) -> None:
    head = {"requests": [request(0, "beer")], "base": base, "channel": "bad", **change}
    refused = walk.run("edit", walk.sheet("bad", **head))
    assert refused.code == 2
    assert words in refused.document["message"] + refused.document["next"]
    assert "Traceback" not in refused.errors


def test_a_killed_edit_finishes_on_the_next_run_and_redoes_nothing(walk: Walk, base: str, second: Answer) -> None:
    sheet = walk.sheet("killed", base, [request(2, "theatre")], channel="killed")
    stages = ("vet-1", "locate-2", "edit-3", "measure-2", "judge-1")
    kept: dict[str, float] = {}
    for stage in stages:
        _kill_when(walk, sheet, stage)
        made = {str(path): path.stat().st_mtime for name in stages for path in (walk.home / "work" / name).glob("[!.]*")}
        assert {path: made.get(path) for path in kept} == kept, "a finished stage was made again"
        kept = made
    ended = walk.run("edit", sheet)
    assert (ended.code, ended.document["state"]) == (0, "serving")
    assert [entry["action"] for entry in walk.run("history", "killed").document["entries"]] == ["open", "promote"]


def test_of_two_promotions_at_once_one_wins_and_the_other_says_who(walk: Walk, base: str) -> None:
    made = [walk.run("edit", walk.sheet(name, base, [request(number, "beer")], channel="raced"))
            for number, name in enumerate(("left", "right"))]
    versions = [answer.document["version"] for answer in made]
    for version in versions:
        walk.run("approve", version, "--reason", "race")
    racers = [subprocess.Popen(walk.command("promote", version, "--json"), env=walk.environment, cwd=walk.home,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for version in versions]
    printed = [racer.communicate(timeout=300)[0] for racer in racers]
    codes = [racer.returncode for racer in racers]
    assert sorted(codes) == [0, 5]
    winner = versions[codes.index(0)]
    assert winner in printed[codes.index(5)]
    assert "tester" in printed[codes.index(5)]


def _kill_when(walk: Walk, sheet: str, stage: str) -> None:
    """Run the edit and SIGKILL it as soon as `stage` has one more finished output."""
    folder = walk.home / "work" / stage
    before = set(folder.glob("[!.]*"))
    process = subprocess.Popen(walk.command("edit", sheet), env=walk.environment, cwd=walk.home,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 300
    while set(folder.glob("[!.]*")) == before and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert set(folder.glob("[!.]*")) != before, f"{stage} never finished"
