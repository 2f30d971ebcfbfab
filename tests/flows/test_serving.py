"""A release asked for in MLflow, promoted by its approvals alone, and served: real servers, a real webhook."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from tests.flows.walk import Answer, Walk, request
from tests.servers import ask, free_port, serving
from tests.tiny import tiny_folder

pytestmark = pytest.mark.flow
SECRET = "a secret of the registry's webhooks"
WEBHOOKS = {"MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            # it remembers for a minute that nobody listens, and an event of that minute is told to nobody
            "MLFLOW_WEBHOOK_CACHE_TTL": "0"}


class Team(Walk):
    """A home whose registry is a server."""

    @property
    def mlflow_uri(self) -> str:
        return self.settings["SUTURE_MLFLOW_URI"]

    @property
    def client(self) -> Any:
        import mlflow

        return mlflow.MlflowClient(self.mlflow_uri, registry_uri=self.mlflow_uri)


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    home, port = tmp_path_factory.mktemp("home"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{home}/registry.db",
               "--artifacts-destination", str(home / "artifacts"), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    team = Team(home, {"SUTURE_MLFLOW_URI": f"http://127.0.0.1:{port}", "SUTURE_WEBHOOK_SECRET": SECRET,
                       "SUTURE_LOG_FORMAT": "json", "SUTURE_SYSTEM_METRICS_SECONDS": "0.5",
                       "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"})
    key = {"MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode()}
    log = tmp_path_factory.mktemp("mlflow")
    with serving(command, {**team.environment, **WEBHOOKS, **key}, log, f"{team.mlflow_uri}/health"):
        yield team


@pytest.fixture(scope="module")
def edited(team: Team, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    base = str(tiny_folder(tmp_path_factory.mktemp("base") / "tiny"))
    return team.run("edit", team.sheet("sheet", base, [request(0, "light")], channel="stable"))


@pytest.fixture(scope="module")
def version(edited: Answer) -> str:
    assert (edited.code, edited.document["state"]) == (0, "pending"), edited.errors
    return str(edited.document["version"])


def get(address: str) -> str:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return str(answer.read().decode())


def until(found: Callable[[], Any], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return answer


def test_log_lines_name_run_stage_and_requests_and_never_a_text(edited: Answer, version: str) -> None:
    lines = [json.loads(line) for line in edited.errors.splitlines() if line.startswith("{")]
    by_stage = {line["stage"]: line for line in lines if "stage" in line}
    assert {"intake", "edit", "measure", "judge", "register"} <= set(by_stage)
    line = by_stage["measure"]
    assert (line["requests"], line["request_count"], line["flow"]) == (["fact-0"], 1, "edit")
    assert len({line["flow_run"] for line in by_stage.values()}) == 1
    assert "Eiffel" not in edited.errors


def test_the_machine_is_watched_in_a_run_of_its_own(team: Team, version: str) -> None:
    experiment = team.client.get_experiment_by_name("suture")
    run = team.client.search_runs([experiment.experiment_id], "tags.`suture.kind` = 'machine'")[0]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["system/system_memory_usage_megabytes"] > 0


def test_an_alias_asks_the_approvals_answer_and_the_channel_is_served(team: Team, version: str, tmp_path: Path) -> None:
    client, port = team.client, free_port()
    name = client.search_registered_models()[0].name
    address = f"http://127.0.0.1:{port}"

    def asked() -> str:
        """What is answered to the alias, told of by the webhook."""
        before = dict(client.get_model_version(name, "1").tags)
        client.set_registered_model_alias(name, "promote", "1")
        until(lambda: "promote" not in client.get_registered_model(name).aliases)
        after = client.get_model_version(name, "1").tags
        assert after["suture.promote"] != before.get("suture.promote")
        return str(after["suture.promote"])

    # an hour between its own looks: only the webhook can have told it
    listen = team.command("listen", "--port", str(port), "--every", "3600")
    with serving(listen, team.environment, tmp_path, f"{address}/health") as log:
        client.create_webhook("suture", f"{address}/mlflow", ["model_version_alias.created"], secret=SECRET)
        assert asked().startswith(f"version {version} waits for approval: nobody approved"), log.read_text()
        assert team.run("approve", version, "--by", "ann", "--reason", "looked at it").code == 0
        assert asked() == "promoted to stable"
        shown = until(lambda: found if "suture_channel_moves{" in (found := get(f"{address}/metrics")) else "")
    expected = {'suture_channel_moves{channel="stable",model="tiny"} 2.0', 'suture_unreadable_records 0.0',
                'suture_channel_edits{channel="stable",model="tiny"} 1.0',
                'suture_versions{channel="stable",model="tiny",state="serving"} 1.0'}
    assert expected <= set(shown.splitlines()), shown
    moves = team.run("history", "stable").document["entries"]
    assert [move["action"] for move in moves] == ["open", "promote"]
    assert moves[-1]["reason"] == f"the alias promote was set on {name} version 1"
    assert {alias: str(number) for alias, number in client.get_registered_model(name).aliases.items()}["champion"] == "1"


def test_a_channel_is_served_as_the_pulled_folder_answers(team: Team, version: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    port = free_port()
    with serving(team.command("serve-model", "stable", "--port", str(port)), team.environment, tmp_path,
                 f"http://127.0.0.1:{port}/health"):
        address = f"http://127.0.0.1:{port}/v1"
        assert "data" in get(f"{address}/models")
        answer = ask(f"{address}/completions", {"prompt": "The Louvre is in", "max_tokens": 3, "temperature": 0})
    folder = next((team.home / "serving").iterdir())
    assert folder.name.endswith(version)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("The Louvre is in", return_tensors="pt").input_ids
    said = AutoModelForCausalLM.from_pretrained(folder).generate(ids, do_sample=False, max_new_tokens=3)[0, ids.shape[1]:]
    assert answer["choices"][0]["text"] == tokenizer.decode(said, skip_special_tokens=True)
    assert answer["model"].startswith(folder.name)


def test_a_changed_folder_is_fetched_again_and_an_unsigned_release_is_not_served(team: Team, version: str,
                                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.serve_model import prepare
    from flows.settings import Settings
    from tasks.signing import SignatureError
    from tests.tasks.test_signing import key_pair

    monkeypatch.setenv("SUTURE_HOME", str(team.home))
    folder = next((team.home / "serving").iterdir())
    whole = (folder / "config.json").read_bytes()
    (folder / "config.json").write_bytes(whole + b" ")
    serving = prepare(Settings(), "stable", None, "127.0.0.1", 8000)  # type: ignore[call-arg]
    assert (folder / "config.json").read_bytes() == whole
    assert serving.command[serving.command.index("serve") + 1] == folder.name
    _, public, _ = key_pair(team.home, "release")
    with pytest.raises(SignatureError, match="is not signed, and signatures are required here"):
        prepare(Settings(verify_key=public), "stable", None, "127.0.0.1", 8000)  # type: ignore[call-arg]
