"""The embedded Prefect server: flows reach it, nobody starts a second one, and nothing is left of it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from tasks.prefect_server import _keep_template, api_url_of, begin_prefect, client_environment

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


def prefect_servers(home: Path) -> set[int]:
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        with suppress(psutil.Error):
            is_server = any("prefect.server" in part for part in process.info["cmdline"] or ())
            if is_server and process.environ().get("PREFECT_HOME", "").startswith(str(home)):
                found.add(process.pid)
    return found


def test_a_flow_runs_on_the_shared_server_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with begin_prefect(tmp_path, TEMPLATES, linger_seconds=0.0) as running:
        environment = {**os.environ, **client_environment(running)}
        flow = [sys.executable, "-c", FLOW]
        done = subprocess.run(flow, env=environment, capture_output=True, text=True, timeout=120, check=True)
        assert done.stdout.strip() == "6"
        assert count(api_url_of(running), "flow_runs") == 1
        deadline = time.monotonic() + 10
        while count(api_url_of(running), "task_runs") < 3 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert count(api_url_of(running), "task_runs") == 3
        server = psutil.Process(running.pid)
        assert {one.laddr.ip for one in server.net_connections() if one.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
        assert prefect_servers(tmp_path) == {running.pid}
    server.wait(timeout=10)
    assert prefect_servers(tmp_path) == set()
    (template,) = TEMPLATES.glob(f"prefect-{version('prefect')}.db")
    with sqlite3.connect(f"file:{template}?mode=ro", uri=True) as database:
        assert database.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
        assert database.execute("SELECT count(*) FROM flow_run").fetchone() == (0,)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_database_in_use_is_never_kept_as_a_template(tmp_path: Path) -> None:
    used = tmp_path / "prefect.db"
    with closing(sqlite3.connect(used)) as database:
        database.executescript("CREATE TABLE flow (id); CREATE TABLE flow_run (id); INSERT INTO flow VALUES (1);")
    _keep_template(used, tmp_path / "templates" / "prefect.db")
    assert list((tmp_path / "templates").iterdir()) == []
