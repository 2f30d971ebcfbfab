"""Deployments on a real Prefect server: made from prefect.yaml, started by an event, run by a process worker; and served."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.prefect_server import api_url_of, begin_standing_prefect
from tests.flows.walk import ROOT, Walk

pytestmark = pytest.mark.flow
TEMPLATES = Path(os.environ.get("SUTURE_TEST_CACHE", "~/.cache/suture")).expanduser()
POOLS = {"suture-process": "process", "suture-docker": "docker", "suture-kubernetes": "kubernetes", "suture-ecs": "ecs"}


@dataclass(frozen=True)
class Site:
    """A Prefect server with a home of Suture, and Prefect's own command line."""

    walk: Walk
    url: str

    @property
    def environment(self) -> dict[str, str]:
        return {**self.walk.environment, "PREFECT_API_URL": self.url, "PREFECT_HOME": str(self.walk.home / "client"),
                "PREFECT_LOGGING_LEVEL": "WARNING"}

    def prefect(self, *arguments: str) -> str:
        done = subprocess.run([sys.executable, "-m", "prefect", "--no-prompt", *arguments], env=self.environment, cwd=ROOT,
                              capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(f"{self.url}/{path}", data=json.dumps(body).encode(),
                                         headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("home")
    with begin_standing_prefect(home, TEMPLATES) as running:
        yield Site(Walk(home), api_url_of(running))


def job_template(kind: str) -> dict[str, Any]:
    """What `prefect work-pool create` gives a pool."""
    import prefect

    shipped = Path(prefect.__file__).parent / "server/api/collections_data/views/aggregate-worker-metadata.json"
    workers = {name: worker for package in json.loads(shipped.read_text()).values() for name, worker in package.items()}
    return workers[kind]["default_base_job_configuration"]


def until(what: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    """Ask until there is an answer; a process that ended gives none."""
    deadline = time.monotonic() + 300
    while not (found := what()):
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.5)
    return found


def stop(process: subprocess.Popen[str], how: int) -> None:
    os.killpg(process.pid, how)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def start(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(arguments, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            start_new_session=True)


def wrong_sheet(folder: Path) -> Path:
    folder.mkdir()
    (folder / "wrong.yaml").write_text("purpose: update\nrequests: []\n")
    os.utime(folder / "wrong.yaml", (0, 0))
    return folder


def refused(folder: Path) -> dict[str, Any] | None:
    found = list((folder / "refused").glob("*.json")) if list((folder / "refused").glob("*.yaml")) else []
    return json.loads(found[0].read_text()) if found else None


def test_an_event_starts_the_inbox_and_a_worker_runs_it(site: Site, tmp_path: Path) -> None:
    for name, kind in POOLS.items():
        site.ask("work_pools/", name=name, type=kind, base_job_template=job_template(kind))
    site.prefect("deploy", "--all")
    deployed = site.ask("deployments/filter", limit=200)
    assert len(deployed) == 40
    assert {(one["work_pool_name"], one["name"]) for one in deployed} == {
        ("suture-process", "local"), ("suture-docker", "docker"), ("suture-kubernetes", "kubernetes"), ("suture-ecs", "ecs")}
    assert not any(schedule["active"] for one in deployed for schedule in one["schedules"])
    folder = wrong_sheet(tmp_path / "inbox")
    worker = start([sys.executable, "-m", "prefect", "worker", "start", "--pool", "suture-process", "--type", "process"],
                   site.environment)
    try:
        site.prefect("event", "emit", "suture.sheet.dropped", "--resource-id", "suture.inbox", "--payload",
                     json.dumps({"place": str(folder)}))
        answer = until(lambda: refused(folder), worker)
        runs = until(lambda: [run for run in site.ask("flow_runs/filter") if run["state_type"] == "COMPLETED"], worker)
    finally:
        stop(worker, signal.SIGTERM)
    assert answer["error"] == "SheetError"
    assert [run["parameters"] for run in runs] == [{"place": str(folder)}]


def test_serve_runs_the_inbox_on_its_schedule_without_any_other_server(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    folder = wrong_sheet(tmp_path / "inbox")
    walk = Walk(home)
    served = start(walk.command("serve", "--inbox", str(folder), "--every", "5", "--verify", "main"), walk.environment)
    try:
        answer = until(lambda: refused(folder), served)
    finally:
        stop(served, signal.SIGINT)
    assert answer["error"] == "SheetError"
    assert "purpose: update" in next((folder / "refused").glob("*.yaml")).read_text()
