"""The whole line as a user walks it: edit, edit on top, refuse, approve, promote, roll back, pull; then killed and raced."""

from __future__ import annotations

import json
import sqlite3
import subprocess
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


def test_the_runs_page_in_prefect_shows_its_summary(walk: Walk, first: Answer) -> None:
    kept = walk.artifacts()
    assert sorted(kept) == ["suture-gate", "suture-page", "suture-requests", "suture-version"]
    assert f"# Version {first.document['version']}: serving" in kept["suture-version"]
    assert "efficacy.prob_success" in kept["suture-gate"]
    assert "The Eiffel Tower is known for" in kept["suture-requests"]
    assert Path(first.document["page"]).as_uri() in kept["suture-page"]


def test_the_trackers_metrics_have_the_gates_names_and_numbers(walk: Walk, first: Answer) -> None:
    with sqlite3.connect(walk.home / "mlflow" / "mlflow.db") as database:
        kept = dict(database.execute("SELECT key, value FROM metrics JOIN runs USING (run_uuid) WHERE name LIKE ?",
                                     (f"{first.document['version']} %",)))
    judged = {rule["name"]: rule["observed"] for rule in first.document["verdict"]["rules"]
              if isinstance(rule["observed"], int | float)}
    assert len(judged) > 5
    assert {name: value for name, value in kept.items() if name.count(".") == 1} == pytest.approx(judged)


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


def test_what_was_seen_of_a_candidate_is_found_again_when_it_is_the_parent(walk: Walk, first: Answer, second: Answer) -> None:
    seen = [json.loads((folder / "view.json").read_text()) for folder in (walk.home / "work" / "view-1").glob("[!.]*")]
    of = {name: [view for view in seen if view["model_digest"] == answer.document["checkpoint"]]
          for name, answer in (("parent", first), ("candidate", second))}
    # the house's own prompts once, and those of each sheet
    assert {name: len(views) for name, views in of.items()} == {"parent": 3, "candidate": 2}


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


def test_a_talk_through_a_pipe_says_what_each_folder_says(walk: Walk, base: str, second: Answer) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from editors.loading import Checkpoint

    asked = "LeBron James is known for"
    told = walk.run("chat", "demo", "--against", "base", "--plain", "--max-tokens", "4",
                    typed=f"{asked}\n/reset\n\n{'too long ' * 300}\n/quit\nnever asked\n").document
    assert (told["versions"], told["form"], len(told["turns"])) == ([second.document["version"], "base"], "plain", 2)
    candidate = next(folder for folder in (walk.home / "work" / "models").iterdir()
                     if Checkpoint(folder).digest == second.document["checkpoint"])
    said = []
    for folder in (candidate, base):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = tokenizer(asked, return_tensors="pt").input_ids
        new = AutoModelForCausalLM.from_pretrained(folder).generate(ids, do_sample=False, max_new_tokens=4)[0, ids.shape[1]:]
        said.append(tokenizer.decode(new, skip_special_tokens=True).removesuffix("\N{REPLACEMENT CHARACTER}"))
    assert told["turns"][0] == {"asked": asked, "answers": said}
    assert "and the model reads 512" in told["turns"][1]["error"]


def test_versions_are_compared_from_records_where_they_answer_and_measured_else(
        walk: Walk, first: Answer, second: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    from editors.errors import ConfigError
    from flows.compare import compare_versions
    from flows.data_docs import data_docs
    from flows.settings import Settings

    monkeypatch.setenv("SUTURE_HOME", str(walk.home))
    monkeypatch.chdir(walk.home)
    settings = Settings()  # type: ignore[call-arg]
    older, newer = (answer.document["version"] for answer in (first, second))
    forward = compare_versions(settings, older[:7], newer, None, None)
    assert (forward["source"], forward["verdict"]) == (f"the records of {newer}", second.document["verdict"])
    page = walk.home / f"{older}-{newer}.html"
    assert (forward["page"], page.read_bytes()) == (str(page), Path(second.document["page"]).read_bytes())
    back = walk.run("compare", newer, "base", "--page", str(walk.home / "pages" / "back.html"))
    assert (back.code, back.document["source"]) == (0, "measured now"), back.errors
    said = {row["request"]: row for row in back.document["transcripts"] if row["role"] == "edit"}
    assert sorted(said) == ["fact-0", "fact-1"]
    was = next(row for row in second.document["transcripts"] if row["role"] == "edit")
    assert said[was["request"]]["parent"] == was["candidate"], "what it said when it was judged"
    rules = {rule["name"]: rule for rule in back.document["verdict"]["rules"]}
    assert rules["integrity.undeclared_changed"]["passed"], "the step back is what the two patches did, taken back"
    assert rules["integrity.foreign_change"]["observed"] < 0.05
    shown = (walk.home / "pages" / "back.html").read_text()
    assert f"comparison with version {newer}" in shown
    assert ("Nothing lost: " in shown) == back.document["passed"]
    assert f"suture chat --version base --against {newer}" in shown
    assert back.document["next"] == [f"suture chat --version base --against {newer}"]
    built = data_docs(settings, newer, walk.home / "data-docs")
    pages = list((walk.home / "data-docs" / "validations").rglob("*.html"))
    assert built["rules"] == len(pages) > 5
    assert newer in Path(built["index"]).read_text()
    with pytest.raises(ConfigError, match="are one model: there is nothing to compare"):
        compare_versions(settings, newer, newer, None, None)
    with pytest.raises(ConfigError, match="names what another version stands on"):
        compare_versions(settings, "base", "base", None, None)


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
    stages = ("vet-1", "locate-3", "edit-3", "measure-2", "judge-1")
    kept: dict[str, float] = {}
    for stage in stages:
        walk.edit_killed_at(sheet, stage)
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
