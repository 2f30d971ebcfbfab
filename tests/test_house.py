"""The house keeps its own promises: shipped files load, sizes hold, the README's commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from editors.sheet import parse_sheet
from validations.policy import load_policy

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("editors", "validations", "tasks", "flows")
HELD_BACK = ("paraphrases", "unseen_templates", "unseen_unsafe")
"""What a request, by its purpose, never shows to the editor."""


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_sheet_loads(path: Path) -> None:
    sheet = parse_sheet(path.read_bytes(), path.name)
    assert sheet.channel == "demo"
    assert any(getattr(request, held_back, ()) for request in sheet.requests for held_back in HELD_BACK)


@pytest.mark.parametrize("path", sorted((ROOT / "validations" / "policies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_policy_loads(path: Path) -> None:
    assert load_policy(path).purpose == path.stem


def test_no_file_is_two_rooms() -> None:
    long = [str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")
            if len(path.read_text().splitlines()) > 300]
    assert long == []


def test_task_signatures_mention_no_tensor_and_no_model() -> None:
    signatures = [line for path in (ROOT / "tasks").glob("*.py") for line in path.read_text().splitlines()
                  if re.match(r"def [a-z]\w*\(", line)]
    assert len(signatures) > 30
    assert [line for line in signatures if re.search(r"Tensor|PreTrained|LoadedModel|nn\.Module", line)] == []


def test_readme_and_docs_show_every_command_and_only_real_ones() -> None:
    from flows.cli import app

    commands = {command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands}
    told = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = {name for path in told for name in re.findall(r"suture ([a-z]+(?:-[a-z]+)?) ", path.read_text())}
    assert commands <= shown
    assert shown <= commands


def test_no_weights_or_caches_are_tracked() -> None:
    import subprocess

    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in tracked if re.search(r"\.(safetensors|gguf|bin|db|pt|pkl|whl)$", name)] == []
