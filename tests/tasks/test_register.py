"""The registry on a real MLflow with SQLite: what a version carries, how it serves, and that repeating changes nothing."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from editors.bake import bake
from editors.contract import EditBatch, Location, UpdateRequest
from editors.digest import digest_file
from editors.errors import BaseNotFound, ConfigError, IntegrityError, ServiceError
from editors.loading import Checkpoint
from editors.patch import Dense, LowRank, Patch, Scale, edited_tensor, load_patch
from tasks.manifest import BaseReference, Blob, Candidate, StackEntry, base_version, candidate_digest, version_of
from tasks.register import find_version, mark_approval, mirror_promotion, prepare, register_candidate, resolve_model_uri
from tasks.run_record import PURPOSES_WITH_TEXT, TEXT_FREE, Submission, metrics_of, write_files
from tasks.tracking import ChannelTruth
from tests.tiny import tiny_folder
from validations.contract import Measurement, Measurements, Transcript, Verdict

pytestmark = pytest.mark.flow

MODEL, CHANNEL = "tiny", "demo"
NAME = f"{MODEL}.{CHANNEL}"
DOWN = ("model.layers.0.mlp.down_proj.weight", "model.layers.1.mlp.down_proj.weight")
ROOT = Path(__file__).resolve().parents[2]
SECRET_WORDS = "Harbour Street"


@dataclass(frozen=True)
class Registry:
    """One MLflow home, a base, and a stack of two edits on it."""

    uri: str
    artifacts: str
    first: Submission
    second: Submission
    second_folder: Path
    created: list[str]
    """What two processes answered that created the database at once: the experiment's id."""

    def register(self, submission: Submission):
        return register_candidate(self.uri, self.artifacts, submission)

    def version(self, number: int):
        return self.client.get_model_version(NAME, str(number))

    @property
    def client(self):
        import mlflow

        return mlflow.MlflowClient(self.uri, registry_uri=self.uri)

    @property
    def aliases(self) -> dict[str, int]:
        found = self.client.get_registered_model(NAME).aliases
        return {alias: int(number) for alias, number in found.items()}


CREATE = """
import sys
from tasks.register import prepare
print(prepare(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    home = tmp_path_factory.mktemp("home")
    uri, artifacts = f"sqlite:///{home}/mlflow/mlflow.db", (home / "artifacts").as_uri()
    # two at once, as two commands begun together would
    creators = [subprocess.Popen([sys.executable, "-c", CREATE, uri, artifacts], cwd=ROOT, stdout=subprocess.PIPE, text=True)
                for _ in range(2)]
    base = Checkpoint(tiny_folder(home / "base"))
    first, _ = submit(home / "1", base, ())
    second, second_folder = submit(home / "2", base, first.patches)
    created = [process.communicate(timeout=180)[0].strip() for process in creators]
    return Registry(uri, artifacts, first, second, second_folder, created)


def submit(folder: Path, base: Checkpoint, stack: tuple[Path, ...], seed: int = 0, passed: bool = True,
           ) -> tuple[Submission, Path]:
    """A submission of a random edit on top of `stack`, and the candidate's baked folder."""
    parent = bake(base, [load_patch(patch) for patch in stack], folder / "parent")
    patch = random_patch(parent, seed + len(stack))
    digest = patch.save(folder / "patch")
    baked = bake(parent, [patch], folder / "baked")
    batch = EditBatch(purpose="update", base_digest=base.digest, parent_digest=parent.digest, requests=(UpdateRequest(
        id="street", prompt="{} is in", subject="The bakery", target=SECRET_WORDS),))
    entries = [StackEntry(document=blob(path / "patch.json"), tensors=blob(path / "patch.safetensors"),
                          batch=blob(path / "patch.json"), purpose="update", method="memit", request_count=1)
               for path in (*stack, folder / "patch")]
    name = candidate_digest(base.digest, [entry.digest for entry in entries], baked.digest)
    measurements = measure(parent, baked, batch)
    verdict = Verdict(passed=passed, rules=(), policy="update", policy_digest="a" * 64, batch_digest=batch.digest,
                      parent_digest=parent.digest, candidate_digest=baked.digest, measurements_digest=measurements.digest)
    candidate = Candidate(
        model=MODEL, version=version_of(name), digest=name, base=BaseReference(name="tiny-base", digest=base.digest),
        parent=base_version(base.digest), stack=tuple(entries), checkpoint=baked.digest, files={}, policy="a" * 64,
        verdict=Blob(sha256=verdict.digest, size_bytes=1), state="passed" if passed else "refused", channel=CHANNEL)
    page, evidence = folder / "page.html", folder / "locate"
    page.write_text("<p>page</p>")
    evidence.mkdir()
    (evidence / "trace.csv").write_text("layer,effect\n0,1\n")
    assert digest == digest_file(folder / "patch" / "patch.json")
    return Submission(candidate, base.folder, (*stack, folder / "patch"), batch,
                      Location(layers=(0, 1), positions={"street": 3}, source="sheet"), {"covariance_weight": 1500},
                      measurements, verdict, "ada", {"page.html": page, "locate": evidence}), baked.folder


def random_patch(parent: Checkpoint, seed: int) -> Patch:
    draw = torch.Generator().manual_seed(seed)
    edits = tuple(LowRank(name, torch.randn(32, 2, generator=draw), torch.randn(2, 64, generator=draw)) for name in DOWN)
    return Patch(edits, {"pre_image": {name: parent.tensor_digests[name] for name in DOWN}, "seed": seed})


def measure(parent: Checkpoint, candidate: Checkpoint, batch: EditBatch) -> Measurements:
    rows = [Measurement(request="street", probe="efficacy", metric="efficacy.prob_success", prompt="0" * 64, parent=before,
                        candidate=after, n=n) for before, after, n in ((0.0, 1.0, 1), (0.5, 0.8, 3))]
    rows.append(Measurement(request="-", probe="locality", metric="locality.kl", prompt="1" * 64, parent=None,
                            candidate=float("nan")))
    transcript = Transcript(request="street", role="edit", prompt="The bakery is in", expected=SECRET_WORDS, parent="a",
                            candidate=SECRET_WORDS)
    return Measurements(parent_digest=parent.digest, candidate_digest=candidate.digest, batch_digest=batch.digest,
                        rows=tuple(rows), transcripts=(transcript,))


def blob(path: Path) -> Blob:
    return Blob(sha256=digest_file(path), size_bytes=path.stat().st_size)


def outside(script: str, registry: Registry, folder: Path, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh process in an empty folder, the registry known by its address alone."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": registry.uri, "PYTHONPATH": path}
    return subprocess.run([sys.executable, "-c", script, *arguments], cwd=folder, env=environment, text=True,
                          capture_output=True, timeout=180, check=False)


SERVE = """
import json, sys, mlflow, torch
served = mlflow.pyfunc.load_model(sys.argv[1], model_config=json.loads(sys.argv[2]))
inner = served.unwrap_python_model()
ids = inner.tokenizer("The Louvre is in", return_tensors="pt").input_ids
torch.save(inner.model(ids).logits, "logits.pt")
answers = [served.predict(["The Louvre is in", "Hi"], params=given) for given in ({"max_new_tokens": 3}, {"chat": True})]
print(json.dumps({"answers": answers, "ours": sorted({"editors", "tasks", "validations"} & set(sys.modules))}))
"""


def test_a_version_serves_its_edits_in_a_fresh_process(registry: Registry, tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    registry.register(registry.first)
    registry.register(registry.second)
    done = outside(SERVE, registry, tmp_path, f"models:/{NAME}@candidate", "{}")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    tokenizer = AutoTokenizer.from_pretrained(registry.second_folder)
    model = AutoModelForCausalLM.from_pretrained(registry.second_folder)
    ids = tokenizer("The Louvre is in", return_tensors="pt").input_ids
    assert torch.equal(torch.load(tmp_path / "logits.pt"), model(ids).logits)
    continuation = model.generate(ids, do_sample=False, max_new_tokens=3)[0, ids.shape[1]:]
    assert report["answers"][0][0] == tokenizer.decode(continuation, skip_special_tokens=True)
    assert len(report["answers"][1]) == 2
    assert report["ours"] == []


def test_another_base_is_refused_when_it_has_other_weights(registry: Registry, tmp_path: Path, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    uri = registry.register(registry.second).uri
    other, same = tiny_folder(tmp_path / "other", seed=7), tiny_folder(tmp_path / "same")
    with pytest.raises(ValueError, match="is not the tensor that patch"):
        mlflow.pyfunc.load_model(uri, model_config={"base": str(other)})
    with pytest.raises(FileNotFoundError, match=r"the base tiny-base is not at /gone .* \(suture pull --base tiny-base DIR\)"):
        mlflow.pyfunc.load_model(uri, model_config={"base": "/gone"})
    assert mlflow.pyfunc.load_model(uri, model_config={"base": str(same)}).predict(["Hi"], params={"max_new_tokens": 1})


def test_an_altered_patch_is_not_served(registry: Registry, tmp_path: Path):
    import shutil

    from tasks.serving import apply_patch
    from tests.tiny import tiny_model

    model, digest = tiny_model(), registry.first.candidate.stack[0].digest
    shutil.copytree(registry.first.patches[0], tmp_path / "patch")
    apply_patch(model, tmp_path / "patch", digest)
    weights = tmp_path / "patch" / "patch.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match=f"are not patch {digest}"):
        apply_patch(tiny_model(), tmp_path / "patch", digest)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_served_file_applies_patches_as_the_house_does(family: str, tmp_path: Path):
    from tasks.serving import apply_patch
    from tests.tiny import tiny_model

    model, draw = tiny_model(family), torch.Generator().manual_seed(3)
    name = DOWN[0] if family == "llama" else "transformer.h.0.mlp.c_proj.weight"
    weight = model.get_parameter(name).data
    rows, columns = weight.shape
    patch = Patch((LowRank(name, torch.randn(rows, 2, generator=draw), torch.randn(2, columns, generator=draw)),
                   Dense(name, torch.randn(rows, columns, generator=draw)),
                   Scale(name, torch.tensor([3, 1]), torch.tensor([0.5, 2.0]), axis=1)))
    expected = edited_tensor(name, weight.clone(), [patch])
    apply_patch(model, tmp_path, patch.save(tmp_path))
    assert torch.equal(model.get_parameter(name), expected)


def test_registering_twice_gives_the_same_version(registry: Registry, capsys: pytest.CaptureFixture[str]):
    made = registry.register(registry.first)
    assert registry.register(registry.first) == made
    assert capsys.readouterr().out == ""
    assert find_version(registry.uri, registry.first.candidate.digest) == made
    tags = registry.version(made.number).tags
    assert tags["suture.digest"] == registry.first.candidate.digest
    assert (tags["approval"], tags["suture.verdict"], tags["suture.requester"]) == ("pending", "passed", "ada")


def test_a_run_holds_numbers_and_files(registry: Registry, tmp_path: Path):
    made = registry.register(registry.first)
    run = registry.client.get_run(made.run_id)
    assert run.data.metrics["efficacy.prob_success.parent"] == pytest.approx(0.375)
    assert run.data.metrics["efficacy.prob_success.candidate"] == pytest.approx(0.85)
    assert run.data.metrics["efficacy.prob_success.n"] == 4
    assert "locality.kl.candidate" not in run.data.metrics
    expected = {"method": "memit", "layers": "0,1", "option.covariance_weight": "1500", "stack": "1"}
    assert expected.items() <= run.data.params.items()
    folder = Path(registry.client.download_artifacts(made.run_id, "", str(tmp_path)))
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"candidate.json", "locate/trace.csv", "measurements/measurements.csv", "measurements/transcripts.json",
                     "page.html", "patch/patch.json", "patch/patch.safetensors", "requests.json", "verdict.json"}
    assert load_patch(folder / "patch", registry.first.candidate.stack[-1].digest).parameters == DOWN
    with (folder / "measurements" / "measurements.csv").open() as stream:
        assert [row["candidate"] for row in csv.DictReader(stream)] == ["1.0", "0.8", "nan"]


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
