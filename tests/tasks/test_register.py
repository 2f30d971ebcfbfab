"""The registry on a real MLflow with SQLite: what a version carries, and that repeating changes nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from editors.bake import bake
from editors.errors import BaseNotFound, ConfigError, IntegrityError, ServiceError
from editors.loading import Checkpoint
from editors.patch import load_patch
from tasks.register import find_version, mark_approval, mirror_promotion, prepare, resolve_model_uri
from tasks.tracking import ChannelTruth
from tests.tasks.registry import CHANNEL, MODEL, NAME, ROOT, Registry, outside, submit

pytestmark = pytest.mark.flow


def test_registering_twice_gives_the_same_version(registry: Registry, capsys: pytest.CaptureFixture[str]):
    made = registry.register(registry.first)
    assert registry.register(registry.first) == made
    assert capsys.readouterr().out == ""
    assert find_version(registry.uri, registry.first.candidate.digest) == made
    tags = registry.version(made.number).tags
    assert tags["suture.digest"] == registry.first.candidate.digest
    assert (tags["approval"], tags["suture.verdict"], tags["suture.requester"]) == ("pending", "passed", "ada")


def test_what_the_gate_refused_never_becomes_candidate(registry: Registry, tmp_path: Path):
    registry.register(registry.first)
    before = registry.aliases["candidate"]
    refused, _ = submit(tmp_path, Checkpoint(registry.first.base_folder), (), seed=5, passed=False)
    made = registry.register(refused)
    assert registry.aliases["candidate"] == before
    assert registry.version(made.number).tags["approval"] == "refused"


def test_another_verdict_is_another_version(registry: Registry):
    made = registry.register(registry.first)
    verdict = registry.first.verdict.model_copy(update={"policy_digest": "b" * 64})
    again = registry.register(replace(registry.first, verdict=verdict))
    assert again.number > made.number
    assert find_version(registry.uri, registry.first.candidate.digest) == again


def test_a_decision_is_shown_and_moves_the_candidate_alias(registry: Registry, tmp_path: Path):
    older, newer = (registry.register(submit(tmp_path / str(seed), Checkpoint(registry.first.base_folder), (), seed=seed)[0])
                    for seed in (21, 22))
    digest = registry.version(newer.number).tags["suture.digest"]
    assert registry.aliases["candidate"] == newer.number
    assert mark_approval(registry.uri, MODEL, digest, "refuse", "grace") == newer
    assert registry.version(newer.number).tags["approval"] == "refused"
    assert registry.version(newer.number).tags["suture.decided_by"] == "grace"
    assert registry.aliases["candidate"] == older.number
    assert mark_approval(registry.uri, MODEL, "f" * 64, "approve", "grace") is None


def test_aliases_follow_the_store(registry: Registry):
    one, two = registry.register(registry.first), registry.register(registry.second)
    first, second = registry.first.candidate.digest, registry.second.candidate.digest
    one = find_version(registry.uri, first)

    def place(champion: str | None, previous: str | None) -> dict[str, int]:
        placed = mirror_promotion(registry.uri, ChannelTruth(MODEL, CHANNEL, champion, previous))
        found = {alias: number for alias, number in registry.aliases.items() if alias != "candidate"}
        assert {alias: version.number for alias, version in placed.items()} == found
        return found

    assert place(first, None) == {"champion": one.number}
    assert place(second, first) == {"champion": two.number, "previous": one.number}
    assert place(second, first) == {"champion": two.number, "previous": one.number}
    registry.client.set_registered_model_alias(NAME, "champion", str(one.number))
    assert place(second, first) == {"champion": two.number, "previous": one.number}
    assert place(first, second) == {"champion": one.number, "previous": two.number}
    assert place(None, "e" * 64) == {}
    assert registry.version(two.number).tags["approval"] == "approved"


def test_a_reference_resolves_to_base_and_patches(registry: Registry, tmp_path: Path):
    made = registry.register(registry.second)
    mirror_promotion(registry.uri, ChannelTruth(MODEL, CHANNEL, registry.second.candidate.digest, None))
    for reference in (f"models:/{NAME}@champion", made.uri):
        found = resolve_model_uri(registry.uri, reference, tmp_path / reference[-8:].replace("/", "-"))
        assert (found.base, found.base_digest, found.base_folder) == (
            "tiny-base", registry.second.candidate.base.digest, registry.second.base_folder)
        stack = [load_patch(path) for path in found.patches]
        rebuilt = bake(Checkpoint(found.base_folder), stack, tmp_path / reference[-3:].replace("/", "-"))
        assert rebuilt.digest == registry.second.candidate.checkpoint


@pytest.mark.parametrize("reference", ["models:/nobody@champion", f"models:/{NAME}@nothing", f"models:/{NAME}/999",
                                       "models:/strangers/1", "models:/", "tiny"])
def test_a_reference_that_leads_nowhere_says_so(registry: Registry, reference: str, tmp_path: Path):
    registry.register(registry.first)
    if reference == "models:/strangers/1" and not registry.client.search_registered_models("name = 'strangers'"):
        registry.client.create_registered_model("strangers")
        registry.client.create_model_version("strangers", tmp_path.as_uri())
    with pytest.raises(BaseNotFound):
        resolve_model_uri(registry.uri, reference, tmp_path)


DIE = """
import os, pickle, sys
import mlflow
from pathlib import Path
from tasks.register import register_candidate
uri, artifacts, *places = sys.argv[1:]
for place in places:
    child = os.fork()
    if child == 0:
        setattr(mlflow.MlflowClient, place, lambda *given, **named: os._exit(137))
        register_candidate(uri, artifacts, pickle.loads(Path(place).read_bytes()))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
PLACES = ("log_model_artifacts", "create_model_version", "set_registered_model_alias")


def test_a_killed_registration_is_healed(registry: Registry, tmp_path: Path):
    import pickle

    base, client = Checkpoint(registry.first.base_folder), registry.client
    submissions = [submit(tmp_path / f"edit-{place}", base, (), seed=30 + seed)[0] for seed, place in enumerate(PLACES)]
    for place, submission in zip(PLACES, submissions, strict=True):
        (tmp_path / place).write_bytes(pickle.dumps(submission))
    died = outside(DIE, registry, tmp_path, registry.uri, registry.artifacts, *PLACES, path=str(ROOT))
    assert died.stdout.split() == ["137", "137", "137"], died.stderr
    experiment = client.get_experiment_by_name("suture").experiment_id
    for place, submission in zip(PLACES, submissions, strict=True):
        query = f"tags.`suture.digest` = '{submission.candidate.digest}'"
        before = len(client.search_model_versions(query))
        made = registry.register(submission)
        assert before == (1 if place == "set_registered_model_alias" else 0)
        assert [int(version.version) for version in client.search_model_versions(query)] == [made.number]
        assert registry.aliases["candidate"] >= made.number
        states = sorted(run.info.status for run in client.search_runs([experiment], query))
        assert states == (["FINISHED", "KILLED"] if place == "log_model_artifacts" else ["FINISHED"])


def test_a_name_of_another_line_is_refused(registry: Registry):
    registry.client.create_registered_model("a.b.c", {"suture.model": "a", "suture.channel": "b.c"})
    candidate = registry.first.candidate.model_copy(update={"model": "a.b", "channel": "c"})
    with pytest.raises(ConfigError, match=r"the registered model a\.b\.c belongs to another line"):
        registry.register(replace(registry.first, candidate=candidate))


def test_a_stack_of_other_patches_is_refused(registry: Registry):
    with pytest.raises(IntegrityError, match="the folders hold"):
        replace(registry.second, patches=registry.first.patches)


def test_nobody_at_the_server_is_said_at_once(tmp_path: Path):
    for ask in (lambda uri: prepare(uri, None), lambda uri: find_version(uri, "a" * 64)):
        with pytest.raises(ServiceError, match=r"nothing answers at the MLflow server http://127\.0\.0\.1:9"):
            ask("http://127.0.0.1:9")


def test_a_damaged_database_is_an_error_to_act_on(tmp_path: Path):
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(ServiceError, match=r"mlflow\.db failed: .*file is not a database"):
        find_version(f"sqlite:///{tmp_path}/mlflow.db", "a" * 64)


def test_asking_an_empty_home_creates_nothing(tmp_path: Path):
    uri = f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    asks: list[Callable[[], object]] = [
        lambda: find_version(uri, "a" * 64), lambda: mark_approval(uri, MODEL, "a" * 64, "approve", "ada"),
        lambda: mirror_promotion(uri, ChannelTruth(MODEL, CHANNEL, None, None))]
    assert [ask() or None for ask in asks] == [None, None, None]
    assert list(tmp_path.iterdir()) == []


def test_two_who_create_the_database_at_once_both_succeed(registry: Registry):
    experiment = prepare(registry.uri, registry.artifacts)
    assert registry.created == [experiment, experiment]


def test_importing_the_task_does_not_import_mlflow():
    script = "import sys, tasks.register; sys.exit('mlflow' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
