"""The tutorial is true: its commands are run as they stand there, and say what it says they say."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.documents import Shown, alike, shown_in
from tests.flows.walk import ROOT, Walk

pytestmark = [pytest.mark.flow, pytest.mark.model]
TUTORIAL = ROOT / "docs" / "tutorial.md"
VERSION = "2b4f5dbd2477"
"""The version that the page's edit made on the machine where it was written."""


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Walk:
    home = tmp_path_factory.mktemp("tutorial") / "home"
    home.mkdir()
    (model_cache / "statistics").mkdir(parents=True, exist_ok=True)
    (home / "cache").symlink_to(model_cache)
    return Walk(home)


def _run(walk: Walk, words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**walk.environment, "SUTURE_USER": "ada", "COLUMNS": "120"}
    return subprocess.run(walk.command(*words), env=environment, capture_output=True, text=True, cwd=folder, timeout=600,
                          check=False)


def _write_sheet(shown: Shown, folder: Path) -> None:
    (folder / shown.words.split()[1]).write_text("\n".join(shown.lines) + "\n", "utf-8")


def test_the_tutorial_is_walked_as_it_stands(walk: Walk, tmp_path: Path) -> None:
    made, seen = VERSION, 0
    for shown in shown_in(TUTORIAL):
        if shown.words.startswith("cat "):
            _write_sheet(shown, tmp_path)
            continue
        name, *words = shlex.split(shown.words.replace(VERSION, made))
        ended = _run(walk, words, tmp_path)
        assert (name, ended.returncode) == ("suture", shown.code), f"{shown.words}\n{ended.stdout}\n{ended.stderr[-3000:]}"
        found = re.search(r"^version +([0-9a-f]{12}) ", ended.stdout, re.MULTILINE)
        made = found[1] if found else made
        printed = alike(ended.stdout)
        assert [line for line in shown.sentences if alike(line) not in printed] == [], f"{shown.words}\n{ended.stdout}"
        seen += 1
    assert seen >= 9
    assert (tmp_path / "model" / "config.json").exists()
