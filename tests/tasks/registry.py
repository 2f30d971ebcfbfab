"""One MLflow home on SQLite with a stack of two edits, for the tests of what is registered there."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from editors.bake import bake
from editors.contract import EditBatch, Location, UpdateRequest
from editors.digest import digest_file
from editors.loading import Checkpoint
from editors.patch import LowRank, Patch, load_patch
from tasks.manifest import BaseReference, Blob, Candidate, StackEntry, base_version, candidate_digest, version_of
from tasks.register import register_candidate
from tasks.run_record import Submission
from tests.tiny import tiny_folder
from validations.contract import Measurement, Measurements, Rule, Transcript, Verdict

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
    observed: dict[str, float | str] = {"efficacy.answer": 0.75, "integrity.finite": 1, "locality.kl": "not finite"}
    rules = tuple(Rule(name=name, passed=passed, severity="critical", observed=value, limit=">= 0.5")
                  for name, value in observed.items())
    verdict = Verdict(passed=passed, rules=rules, policy="update", policy_digest="a" * 64, batch_digest=batch.digest,
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
