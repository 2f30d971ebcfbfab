"""What a run holds: numbers, files, and words only where its purpose may keep them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from editors.patch import load_patch
from tasks.run_record import PURPOSES_WITH_TEXT, TEXT_FREE, judged_by, metrics_of, write_files
from tests.tasks.registry import DOWN, SECRET_WORDS, Registry
from validations.contract import Rule, Verdict
from validations.policy import FOLDER, load_policy

pytestmark = pytest.mark.flow


def test_a_run_holds_numbers_and_files(registry: Registry, tmp_path: Path):
    made = registry.register(registry.first)
    run = registry.client.get_run(made.run_id)
    assert run.data.metrics["efficacy.prob_success.parent"] == pytest.approx(0.375)
    assert run.data.metrics["efficacy.prob_success.candidate"] == pytest.approx(0.85)
    assert run.data.metrics["efficacy.prob_success.n"] == 4
    assert "locality.kl.candidate" not in run.data.metrics
    named_as_rules = {name: value for name, value in run.data.metrics.items() if name.count(".") == 1}
    assert named_as_rules == {"efficacy.answer": 0.75, "integrity.finite": 1.0}
    expected = {"method": "memit", "layers": "0,1", "option.covariance_weight": "1500", "stack": "1"}
    assert expected.items() <= run.data.params.items()
    folder = Path(registry.client.download_artifacts(made.run_id, "", str(tmp_path)))
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"candidate.json", "locate/trace.csv", "measurements/measurements.csv", "measurements/transcripts.json",
                     "page.html", "patch/patch.json", "patch/patch.safetensors", "requests.json", "verdict.json"}
    assert load_patch(folder / "patch", registry.first.candidate.stack[-1].digest).parameters == DOWN
    with (folder / "measurements" / "measurements.csv").open() as stream:
        assert [row["candidate"] for row in csv.DictReader(stream)] == ["1.0", "0.8", "nan"]


def test_words_stay_out_where_the_purpose_is_about_people(registry: Registry, tmp_path: Path, monkeypatch):
    def words_in(folder: Path) -> bool:
        write_files(registry.first, folder)
        return any(SECRET_WORDS.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())

    assert words_in(tmp_path / "shown")
    monkeypatch.setattr("tasks.run_record.PURPOSES_WITH_TEXT", PURPOSES_WITH_TEXT - {"update"})
    monkeypatch.setattr("tasks.run_record.TEXT_FREE", frozenset())
    assert not words_in(tmp_path / "kept")
    assert not (tmp_path / "kept" / "page.html").exists()
    monkeypatch.setattr("tasks.run_record.TEXT_FREE", TEXT_FREE)
    page = registry.first.artefacts["page.html"]
    write_files(replace(registry.first, artefacts={"certificate.html": page, "trace.png": page}), tmp_path / "free")
    assert (tmp_path / "free" / "certificate.html").exists()
    assert not (tmp_path / "free" / "trace.png").exists()


def test_means_count_observations_and_skip_what_is_not_finite(registry: Registry):
    means = metrics_of(registry.first.measurements)
    assert means == pytest.approx({"efficacy.prob_success.parent": 0.375, "efficacy.prob_success.candidate": 0.85,
                                   "efficacy.prob_success.n": 4.0, "locality.kl.n": 1.0})


@pytest.mark.parametrize("policy", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_trackers_names_are_the_gates(policy: Path):
    rules = [Rule(name=rule.name, passed=True, severity=rule.severity, observed=0.5, limit=rule.limit)
             for rule in load_policy(policy).rules]
    verdict = Verdict(passed=True, rules=tuple(rules), policy=policy.stem, **{
        f"{name}_digest": "a" * 64 for name in ("policy", "batch", "parent", "candidate", "measurements")})
    assert set(judged_by(verdict)) == {rule.name for rule in load_policy(policy).rules}
