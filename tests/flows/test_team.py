"""A team's machine, every part of it real: PostgreSQL, S3 with TLS, Prefect's pages in a browser, MLflow; edit to rollback."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.browser import PATIENCE_SECONDS, browsing
from tests.chromium import Chromium
from tests.debian import need
from tests.flows.walk import ROOT, Answer, Walk, request
from tests.tiny import tiny_folder

pytestmark = pytest.mark.flow
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
RULE = {"approvers": ["ann", "ben"], "required": 2}


@dataclass(frozen=True)
class Site:
    """The running team, and a user's command line that works with it."""

    walk: Walk
    process: subprocess.Popen[str]

    @property
    def prefect(self) -> str:
        return self.walk.settings["PREFECT_API_URL"]

    def ask(self, path: str, **body: Any) -> Any:
        return sent(f"{self.prefect}/{path}", body)

    def mlflow(self, path: str, **body: Any) -> Any:
        return sent(f"{self.walk.settings['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/{path}", body)

    def tags(self, version: str) -> dict[str, str]:
        found = self.mlflow("model-versions/search?filter=" + urllib.request.quote(f"name='tiny.{version}'"))
        return {tag["key"]: tag["value"] for tag in found["model_versions"][0]["tags"]}

    def waiting(self, version: str) -> list[str]:
        """The runs that wait for an answer about a version."""
        runs = self.ask("flow_runs/filter", flow_runs={"state": {"name": {"any_": ["Suspended"]}}})
        return [run["id"] for run in runs if run["parameters"] == {"version": version}]

    def events(self) -> set[str]:
        """Names of what Prefect was told of."""
        return {one["event"] for one in self.ask("events/filter", filter={"event": {"prefix": ["suture."]}})["events"]}

    def until(self, what: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 240
        while not (found := what()):
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, f"it never came\n{self.log}"
            time.sleep(0.3)
        return found

    @property
    def log(self) -> str:
        return (self.walk.home / "team.log").read_text()[-3000:]


def sent(url: str, body: dict[str, Any]) -> Any:
    data = json.dumps(body).encode() if body else None
    asked = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with DIRECT.open(asked, timeout=60) as answer:
        return json.loads(answer.read() or b"null")


def is_open(url: str) -> bool:
    place = urlsplit(url)
    with socket.socket() as probe:
        return probe.connect_ex((place.hostname, place.port)) == 0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    need(initdb="postgresql")
    home = tmp_path_factory.mktemp("home")
    alone, place = Walk(home), home / "team" / "environment"
    with (home / "team.log").open("w") as log:
        process = subprocess.Popen(alone.command("team"), env=alone.environment, cwd=ROOT, stdout=log, stderr=log, text=True,
                                   start_new_session=True,
                                   # tests that run in the background ignore it, and so would what they start
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # noqa: PLW1509 (no lock)
    try:
        Site(alone, process).until(lambda: "serving" in (home / "team.log").read_text())
        led = dict(line.split("=", 1) for line in place.read_text().splitlines())
        yield Site(Walk(home, {name: shlex.split(value)[0] for name, value in led.items()}), process)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def edited(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    base = str(tiny_folder(tmp_path_factory.mktemp("base") / "tiny"))
    sheet = site.walk.sheet("sheet", base, [request(0, "light")], channel="main")
    policy = site.walk.home / "lenient.yaml"
    policy.write_text(yaml.safe_dump({**yaml.safe_load(policy.read_text()), "approval": RULE}))
    return site.walk.run("edit", sheet)


def test_everything_is_up_and_its_keys_are_closed_to_others(site: Site) -> None:
    place = site.walk.home / "team" / "environment"
    assert place.stat().st_mode & 0o777 == 0o600
    assert site.walk.settings["SUTURE_ENDPOINT_URL"].startswith("https://127.0.0.1:")
    site.until(lambda: len(site.ask("deployments/filter", limit=100)) == 10)
    tables = rows(site, "prefect", "SELECT count(*) FROM deployment"), rows(site, "mlflow", "SELECT count(*) FROM experiments")
    assert tables == (10, 1), "both servers keep what they know in PostgreSQL"


def test_two_people_approve_one_on_prefects_pages_and_one_in_mlflow(site: Site, chromium: Chromium, edited: Answer,
                                                                    tmp_path: Path) -> None:
    version = edited.document["version"]
    assert (edited.code, edited.document["state"]) == (0, "pending"), edited.errors
    run = site.until(lambda: site.waiting(version))[0]
    with browsing(chromium.binary, tmp_path) as page:
        page.open(f"{site.prefect.removesuffix('/api')}/v2/runs/flow-run/{run}")
        page.click("button", "Open menu")
        page.click("[role=menuitem]", "Resume")
        page.wait_for("nobody approved, 2 more of 2 needed; may approve: ann, ben")
        page.click("[aria-label='Select Decision']")
        page.click("[role=option]", "approve")
        approver, comment = page.fields("[role=dialog] textarea")
        page.type(approver, "Ann")
        page.type(comment, "read its page")
        page.click("[role=dialog] button", "Resume")
        page.wait_until_gone("[role=dialog]")
        following = site.until(lambda: [one for one in site.waiting(version) if one != run])
    assert len(following) == 1, "who is still missing is asked by a run of its own"
    for tag, name in (("suture.approve", "ben"), ("suture.refuse", "eve"), ("suture.comment", "so do I")):
        site.mlflow("model-versions/set-tag", name="tiny.main", version="1", key=tag, value=name)
    told = site.walk.run("approvals").document
    assert [(one["by"], one["decision"]) for one in told["decided"]] == [("ben", "approve")]
    denied = f"eve may not decide on version {version}: the policy of version {version} names ann, ben for channel main"
    assert [one["answer"] for one in told["denied"]] == [f"eve could not refuse it: {denied}"]
    tags = site.tags("main")
    assert not {"suture.approve", "suture.refuse", "suture.comment"} & set(tags), "each is answered once"
    assert (tags["approval"], tags["suture.decided_by"]) == ("approved", "ben"), "who made it complete"


def test_it_is_promoted_pulled_and_rolled_back(site: Site, edited: Answer, tmp_path: Path) -> None:
    version = edited.document["version"]
    promoted = site.walk.run("promote", version, "--by", "ann")
    assert (promoted.code, promoted.document["channel"]) == (0, "main"), promoted.errors
    pulled = site.walk.run("pull", "main", str(tmp_path / "model"))
    assert (pulled.code, pulled.document["version"]) == (0, version), pulled.errors
    assert (tmp_path / "model" / "config.json").is_file()
    back = site.walk.run("rollback", "main", "--by", "ben")
    assert (back.code, back.document["left"]) == (0, version), back.errors
    said = site.walk.run("show", version).document["approval"]["approvals"]
    assert [(one["by"], one["reason"]) for one in said] == [
        ("Ann", "read its page (by Prefect's form)"), ("ben", "so do I (by a tag in MLflow, whose author nothing proves)")]
    expected = {"suture.candidate.waiting", "suture.channel.promoted", "suture.channel.rolled-back"}
    # the server writes down what it is told in its own time
    assert site.until(lambda: expected <= site.events())


def test_all_of_it_stops_with_the_command(site: Site) -> None:
    os.killpg(site.process.pid, signal.SIGINT)
    site.process.wait(PATIENCE_SECONDS)
    urls = [site.walk.settings[name] for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "SUTURE_ENDPOINT_URL")]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(map(is_open, urls)) or (site.walk.home / "team" / "postgres" / "data" / "postmaster.pid").exists():
        assert time.monotonic() < deadline, "something stayed"
        time.sleep(0.2)


def rows(site: Site, database: str, query: str) -> int:
    import psycopg2

    folder = site.walk.home / "team" / "postgres"
    port = json.loads((folder / "server.json").read_text())["port"]
    with psycopg2.connect(host="127.0.0.1", port=port, user="suture", dbname=database,
                          password=(folder / "password").read_text()) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return int(cursor.fetchone()[0])
