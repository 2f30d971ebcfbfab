"""The embedded Prefect server: flows reach it, nobody starts a second one, and nothing is left of it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from tasks.prefect_server import begin_prefect, client_environment

pytestmark = pytest.mark.flow

FLOW = """
from prefect import flow, task

@task
def double(number: int) -> int:
    return 2 * number

@flow
def doubled() -> int:
    return sum(double(number) for number in range(3))

print(doubled())
"""
TEMPLATES = Path(os.environ.get("SUTURE_TEST_CACHE", "~/.cache/suture")).expanduser()


def count(api_url: str, kind: str) -> int:
    request = urllib.request.Request(f"{api_url}/{kind}/count", data=b"{}", headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(json.load(answer))


def servers() -> set[int]:
    found = psutil.process_iter(["pid", "cmdline"])
    return {one.pid for one in found if any("prefect.server" in part for part in one.info["cmdline"] or ())}


def test_a_flow_runs_on_the_shared_server_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with begin_prefect(tmp_path, TEMPLATES, linger_seconds=0.0) as running:
        environment = {**os.environ, **client_environment(running)}
        done = subprocess.run(
            [sys.executable, "-c", FLOW], env=environment, capture_output=True, text=True, timeout=120, check=True
        )
        assert done.stdout.strip() == "6"
        api_url = environment["PREFECT_API_URL"]
        assert count(api_url, "flow_runs") == 1
        deadline = time.monotonic() + 10
        while count(api_url, "task_runs") < 3 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert count(api_url, "task_runs") == 3
        server = psutil.Process(running.pid)
        assert {one.laddr.ip for one in server.net_connections() if one.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
        mine = {pid for pid in servers() if str(tmp_path) in psutil.Process(pid).environ().get("PREFECT_HOME", "")}
        assert mine == {running.pid}
    server.wait(timeout=10)


def test_the_template_is_an_empty_migrated_database(tmp_path: Path) -> None:
    with begin_prefect(tmp_path, TEMPLATES, linger_seconds=0.0):
        pass
    (template,) = TEMPLATES.glob("prefect-*.db")
    with sqlite3.connect(f"file:{template}?mode=ro", uri=True) as database:
        assert database.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
        assert database.execute("SELECT count(*) FROM flow_run").fetchone() == (0,)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)
