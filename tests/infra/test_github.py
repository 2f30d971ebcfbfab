"""The workflow for sheets in a GitHub repository: it is one by GitHub's schema, and its script does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra.templates import INFRA

FILE = INFRA / "github" / "edit.yaml"
WORKFLOW: dict[Any, Any] = yaml.safe_load(FILE.read_text())
JOB = WORKFLOW["jobs"]["sheets"]
STEP = JOB["steps"][-1]
DOCKER = """#!/bin/bash
printf '%s\\n' "${@: -4}" >> "$RUNNER_TEMP/ran"
[[ "$*" != *refused* ]] || exit 3
"""


def test_it_is_a_workflow_by_githubs_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    broken = FILE.read_text().replace("runs-on: ubuntu-latest", "run-on: ubuntu-latest")
    refused = subprocess.run([*command[:-1], "-"], input=broken, capture_output=True, text=True, check=False)
    assert refused.returncode == 1, "else the schema would let anything through"


def test_nothing_of_an_event_is_pasted_into_a_script_and_no_token_is_wide() -> None:
    assert WORKFLOW["permissions"] == {}
    assert JOB["permissions"] == {"contents": "read", "id-token": "write"}
    assert "${{" not in STEP["run"], "a branch's name would be run"
    assert set(WORKFLOW[True]) == {"pull_request", "push"}, "pull_request_target would hand a fork the secrets"
    assert all("@" in step["uses"] for step in JOB["steps"] if "uses" in step)


def test_every_variable_of_the_script_is_given_and_is_a_setting() -> None:
    from flows.settings import Settings

    given = set(STEP["env"])
    used = set(re.findall(r"\$([A-Z_]+)|-e ([A-Z_]+)", STEP["run"]))
    names = {name for pair in used for name in pair if name}
    assert {name for name in names - given if not name.startswith("AWS_")} == {"PWD", "RUNNER_TEMP"}
    assert {name.removeprefix("SUTURE_").lower() for name in given if name.startswith("SUTURE_")} <= set(Settings.model_fields)


@pytest.mark.parametrize(("sheets", "code"), [(("a b.yaml", "$(touch bad).yaml"), 0), (("refused.yaml", "z.yaml"), 3)])
def test_each_changed_sheet_is_carried_out_and_a_refusal_fails_the_job(sheets: tuple[str, ...], code: int,
                                                                                tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    (repository / "sheets").mkdir(parents=True)
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "RUNNER_TEMP": str(tmp_path),
                   "OPTION": "--dry-run", "IMAGE": "suture:1", "GIT_CONFIG_GLOBAL": "/dev/null", "BEFORE": "HEAD^"}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)

    def commit() -> None:
        run("git", "add", "-A")
        run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "sheets", "--allow-empty")

    run("git", "init", "-q")
    (repository / "sheets" / "old.yaml").write_text("old")
    commit()
    assert run("bash", "-eo", "pipefail", "-c", STEP["run"]).returncode != 0, "there is nothing before the first commit"
    for sheet in sheets:
        (repository / "sheets" / sheet).write_text("new")
    commit()
    done = run("bash", "-eo", "pipefail", "-c", STEP["run"])
    assert done.returncode == code, done.stderr
    expected = [line for sheet in sorted(sheets) for line in ("suture", "edit", f"sheets/{sheet}", "--dry-run")]
    assert (tmp_path / "ran").read_text().splitlines() == expected
    assert not (repository / "bad").exists()
