"""Work shared among real processes comes out as one process has it; each worker loads the model once."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
import torch
from prefect import flow, task
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from editors.crew import Alone, carry_out_elsewhere, crew, hired
from editors.errors import ConfigError, IntegrityError
from editors.loading import Checkpoint, LoadedModel, load
from editors.suffix import Row
from editors.target_search import Search, SearchConfig, TargetRow, search_targets
from flows.crew import _runner, crew_of
from flows.settings import Settings
from tasks.ask_bias import AskBias
from tasks.ask_earlier import AskEarlier
from tasks.ask_safety import AskSafety
from tasks.ask_secrets import AskSecrets
from tasks.examine import _shown
from tasks.house import House
from tasks.prefect_server import embedded_prefect
from tests.flows.loads import seen_by
from tests.tiny import tiny_folder
from validations.examination import Examination
from validations.scoring import Answer, Ask, answer

pytestmark = pytest.mark.flow
TEMPLATES = Path(os.environ.get("SUTURE_TEST_CACHE", "~/.cache/suture")).expanduser()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("crew") / "tiny")


def rows(count: int) -> list[TargetRow]:
    ids = [tuple(torch.randint(3, 500, (9,), generator=torch.Generator().manual_seed(seed)).tolist()) for seed in range(count)]
    return [TargetRow(Row(ids=one[:8], anchor=4, owner=owner, reads=(7,)), labels=(one[8],)) for owner, one in enumerate(ids)]


def work(model: LoadedModel) -> tuple[Search, list[Answer]]:
    found = search_targets(model, 1, rows(6), SearchConfig(steps=4, token_budget=16))
    asks = [Ask(row.row.ids[:3 + number % 5], greedy_tokens=3, continuations=((5, 6),)) for number, row in enumerate(rows(80))]
    return found, answer(model, asks)


def is_guarded(kind: str, workers: Any) -> bool:
    """Whether the workers ask whoever comes for what only this user has: who reaches a scheduler runs code."""
    if kind == "dask":
        return str(workers.runner.client.scheduler.address).startswith("tls://")
    raylet = importlib.import_module("ray._raylet")
    return bool(raylet.get_authentication_mode() == raylet.AuthenticationMode.TOKEN)


@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_two_processes_find_what_one_finds_and_load_the_model_once(kind: str, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip(f"prefect_{kind}", reason=f"prefect-{kind} is not installed: pip install 'suture[{kind}]'")
    model = load(Checkpoint(folder), "cpu")
    alone = work(model)
    two = Settings(workers=kind, worker_count=2, device="cpu")  # type: ignore[call-arg]
    with embedded_prefect(tmp_path / "home", TEMPLATES, linger_seconds=0.0) as client, temporary_settings({
            PREFECT_API_URL: client["PREFECT_API_URL"], PREFECT_HOME: tmp_path, PREFECT_LOGGING_TO_API_ENABLED: False}):

        @task
        def stage(house: Any) -> tuple[Any, list[tuple[int, int, int]], bool]:
            with crew_of(two) as workers, hired(workers):
                found, loads = work(model), list(workers.carry_out(seen_by, model, list(range(8))))
                return found, loads, is_guarded(kind, workers)

        @flow
        def share() -> tuple[Any, list[tuple[int, int, int]], bool]:
            # a stage's arguments hold keys and texts: a lock can go to no other process, and neither do they
            return stage(Lock())

        shared, seen, guarded = share()
    assert guarded
    assert float(shared[0].change.norm()) > 0
    assert torch.allclose(alone[0].change, shared[0].change, rtol=0, atol=1e-6)
    assert torch.allclose(alone[0].loss, shared[0].loss, rtol=0, atol=1e-6)
    assert alone[1] == shared[1]
    assert [part for part, _, _ in seen] == list(range(8)), "in order"
    processes = {process: loads for _, process, loads in seen}
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert set(processes.values()) == {1}, "one load in each worker"


def test_a_worker_that_sees_another_model_refuses(folder: Path) -> None:
    with pytest.raises(IntegrityError, match=r"holds model .* on this worker, expected 0000"):
        carry_out_elsewhere(len, folder, "0" * 64, "cpu", [])


@pytest.mark.parametrize(("kind", "shared"), [(AskBias, True), (AskSafety, True), (AskSecrets, False), (AskEarlier, False)])
def test_workers_are_asked_nothing_that_may_hold_a_secret(folder: Path, tmp_path: Path, kind: type, shared: bool) -> None:
    who = Alone()
    house = House(root=tmp_path, store=None, mlflow_uri="", user="tester", privacy_key=None, device="cpu", crew=who)
    asked_by = []

    class Asker(kind):  # type: ignore[misc]
        def __init__(self) -> None: ...

        def key(self, model_digest: str, reference: Any) -> str:
            return model_digest

        def examine(self, model: LoadedModel, reference: Any, progress: Any) -> Examination:
            asked_by.append(crew())
            return Examination(model_digest=model.digest, requests_digest="", settings_digest="", findings=())

    _shown(Asker(), Checkpoint(folder), None, house)
    assert [one is who for one in asked_by] == [shared]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prefect_ray", None)
    with pytest.raises(ConfigError, match="SUTURE_WORKERS=ray needs a package"):
        _runner(Settings(workers="ray"))  # type: ignore[call-arg]


def test_a_split_model_answers_as_a_whole_one(folder: Path) -> None:
    checkpoint = Checkpoint(folder)
    ids = torch.arange(3, 40)[None]
    whole = load(checkpoint, "cpu").model(ids).logits
    split = load(checkpoint, "split")
    assert split is load(checkpoint, "split")
    assert split.folder == checkpoint.folder
    assert torch.allclose(split.model(ids.to(split.device)).logits.float().cpu(), whole, atol=1e-4)
