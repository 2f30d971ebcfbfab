"""What the pages of `docs/` say about methods, files and commands is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

import editors
from flows.cli import app

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
COMMAND = re.compile(r"^    (?:\$ )?(suture [a-z].*)$", re.MULTILINE)


def _name(path: Path) -> str:
    return str(path.relative_to(DOCS))


def test_every_method_has_a_page_and_no_other() -> None:
    assert {path.stem for path in (DOCS / "methods").glob("*.md")} == set(editors.METHODS)


@pytest.mark.parametrize("name", sorted(editors.METHODS))
def test_a_methods_page_names_its_purpose_and_options_that_it_takes(name: str) -> None:
    text = (DOCS / "methods" / f"{name}.md").read_text("utf-8")
    shown = re.search(r"^    method: (.+)$", text, re.MULTILINE)
    purpose = re.search(r"In a sheet of purpose `(\w+)`", text)
    assert shown
    assert purpose
    options = yaml.safe_load(shown[1])
    assert options.pop("name") == name
    kind = editors.get(name)
    assert purpose[1] in kind.purposes
    kind.from_options(options)


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_every_command_of_a_page_is_one(path: Path) -> None:
    """Its name, arguments and options; what it does is run in the tests of the flows."""
    for line in COMMAND.findall(path.read_text("utf-8")):
        _, name, *words = shlex.split(line, comments=True)
        command = get_command(app).commands[name]
        command.make_context(name, words)


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_every_file_that_a_page_names_is_there(path: Path) -> None:
    named = re.findall(r"`((?:benchmarks|editors|examples|validations|docs|infra|tests)/[\w/.-]+)", path.read_text("utf-8"))
    named += [f"docs/{name}" for name in re.findall(r"`([a-z]+\.md|methods/)`", path.read_text("utf-8"))]
    assert [name for name in named if not (DOCS.parent / name).exists()] == []
