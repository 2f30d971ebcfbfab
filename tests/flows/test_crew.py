"""Work shared among real processes comes out as one process has it; each worker loads the model once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from editors.crew import carry_out_elsewhere
from editors.errors import ConfigError, IntegrityError
from editors.loading import Checkpoint, load
from tasks.prefect_server import embedded_prefect
from tests.flows.walk import ROOT
from tests.tiny import tiny_folder

pytestmark = pytest.mark.flow
TEMPLATES = Path(os.environ.get("SUTURE_TEST_CACHE", "~/.cache/suture")).expanduser()

SHARED = """
import json, os, sys
from pathlib import Path
import torch
from prefect import flow
from editors.crew import hired
from editors.loading import Checkpoint, load
from editors.suffix import Row
from editors.target_search import SearchConfig, TargetRow, search_targets
from flows.crew import crew_of
from flows.settings import Settings
from tests.flows.loads import seen_by
from validations.scoring import Ask, answer

def rows(count):
    ids = [tuple(torch.randint(3, 500, (9,), generator=torch.Generator().manual_seed(seed)).tolist()) for seed in range(count)]
    return [TargetRow(Row(ids=one[:8], anchor=4, owner=owner, reads=(7,)), labels=(one[8],)) for owner, one in enumerate(ids)]

def work(model):
    found = search_targets(model, 1, rows(6), SearchConfig(steps=4, token_budget=16))
    asks = [Ask(row.row.ids[:3 + number % 5], greedy_tokens=3, continuations=((5, 6),)) for number, row in enumerate(rows(80))]
    return found, answer(model, asks)

@flow
def compare(folder):
    model = load(Checkpoint(Path(folder)), "cpu")
    alone = work(model)
    with crew_of(Settings(workers="dask", worker_count=2, device="cpu")) as crew, hired(crew):
        shared = work(model)
        loads = list(crew.carry_out(seen_by, model, list(range(8))))
    return {"equal": torch.equal(alone[0].change, shared[0].change) and torch.equal(alone[0].loss, shared[0].loss),
            "apart": float((alone[0].change - shared[0].change).abs().max()), "moved": float(shared[0].change.norm()),
            "answers": alone[1] == shared[1], "loads": loads, "own": os.getpid()}

if __name__ == "__main__":
    print(json.dumps(compare(sys.argv[1])))
"""


def test_two_processes_find_what_one_finds_and_load_the_model_once(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    (tmp_path / "shared.py").write_text(SHARED)
    with embedded_prefect(tmp_path / "home", TEMPLATES, linger_seconds=0.0) as client:
        done = subprocess.run([sys.executable, "shared.py", str(folder)], cwd=tmp_path, text=True, capture_output=True,
                              env={**os.environ, **client, "PYTHONPATH": str(ROOT), "PREFECT_LOGGING_LEVEL": "ERROR"},
                              timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["moved"] > 0
    assert found["equal"], found["apart"]
    assert found["answers"]
    assert [part for part, _, _ in found["loads"]] == list(range(8)), "in order"
    processes = {process: loads for _, process, loads in found["loads"]}
    assert len(processes) == 2
    assert found["own"] not in processes
    assert set(processes.values()) == {1}, "one load in each worker"


def test_a_worker_that_sees_another_model_refuses(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    with pytest.raises(IntegrityError, match=r"holds model .* on this worker, expected 0000"):
        carry_out_elsewhere(len, folder, "0" * 64, "cpu", [])


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.crew import _runner
    from flows.settings import Settings

    monkeypatch.setitem(sys.modules, "prefect_ray", None)
    with pytest.raises(ConfigError, match="SUTURE_WORKERS=ray needs a package"):
        _runner(Settings(workers="ray"))  # type: ignore[call-arg]


def test_a_split_model_answers_as_a_whole_one(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tiny_folder(tmp_path / "tiny"))
    ids = torch.arange(3, 40)[None]
    whole = load(checkpoint, "cpu").model(ids).logits
    split = load(checkpoint, "split")
    assert split is load(checkpoint, "split")
    assert split.folder == checkpoint.folder
    assert torch.allclose(split.model(ids.to(split.device)).logits.float().cpu(), whole, atol=1e-4)
