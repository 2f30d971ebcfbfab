"""The command line: starts light, teaches, and answers bad input with one clear error."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from flows.cli import app

HEAVY = ("torch", "transformers", "mlflow", "great_expectations", "prefect", "boto3", "pandas", "matplotlib", "numpy", "gguf")
COMMANDS = ("edit", "inbox", "locate", "measure", "warm", "calibrate", "approve", "promote", "rollback", "remove", "pull",
            "history", "show", "verify", "sign", "gc", "chat", "compare", "docs")


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    code = f"import flows.cli, sys; print([name for name in {HEAVY} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_with_an_example(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert f"suture {command} " in shown.output
    assert "Example" in shown.output
    assert "--json" in shown.output


def test_serve_teaches_with_an_example() -> None:
    shown = CliRunner().invoke(app, ["serve", "--help"])
    assert "suture serve --inbox ./inbox --verify main" in " ".join(shown.output.split())


@pytest.mark.parametrize(("command", "example"), [("serve-model", "serve-model demo --port 8000"),
                                                  ("listen", "listen --port 8088")])
def test_commands_that_stay_teach_with_an_example(command: str, example: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"])
    assert f"suture {example}" in " ".join(shown.output.split())


def test_an_unknown_setting_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SUTURE_LINGER_SECONDS", "soon")
    shown = CliRunner().invoke(app, ["show", "abc", "--json"])
    answer = json.loads(shown.stdout)
    assert shown.exit_code == 2
    assert answer["error"] == "ConfigError"
    assert "linger_seconds" in answer["message"]
    assert "'soon'" in answer["message"]


def test_a_wrong_key_in_the_settings_file_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suture.toml").write_text('stor = "s3://bucket"\n')
    shown = CliRunner().invoke(app, ["show", "abc", "--json"])
    assert "stor: Extra inputs are not permitted" in json.loads(shown.stdout)["message"]


def test_pull_wants_exactly_one_source() -> None:
    shown = CliRunner().invoke(app, ["pull", "one", "two", "folder", "--json"])
    assert shown.exit_code == 2
    assert json.loads(shown.stdout)["next"] == "suture pull demo ./model"


def test_a_decision_needs_a_reason() -> None:
    shown = CliRunner().invoke(app, ["approve", "3f9a1c2b7d04", "--json"])
    assert shown.exit_code == 2
    assert json.loads(shown.stdout)["next"] == 'add --reason "..."'


def test_a_talk_stands_in_columns_and_in_plain_lines(capsys) -> None:
    from flows.console_chat import PipedScreen, TerminalScreen

    for screen in (TerminalScreen(), PipedScreen()):
        screen.open(("3f9a1c2b7d04", "base"), "chat")
        screen.show("Who?", iter([("", ""), ("I am [bold]", "N"), ("I am [bold]", "Nobody")]))
    columns, plain = capsys.readouterr().out.split("> Who?\n")
    row = next(line for line in columns.splitlines() if "Nobody" in line)
    assert row.index("I am [bold]") < row.index("Nobody")
    assert "3f9a1c2b7d04" in columns
    assert plain == "3f9a1c2b7d04: I am [bold]\nbase: Nobody\n"


@pytest.mark.parametrize("command", [("edit",), ("edit", "--dry-run"), ("locate",), ("measure",)])
def test_a_wrong_sheet_is_refused_before_anything_is_started(command: tuple[str, ...], tmp_path, monkeypatch) -> None:
    home, sheet = tmp_path / "home", tmp_path / "sheet.yaml"
    monkeypatch.setenv("SUTURE_HOME", str(home))
    sheet.write_text("purpose: update\nbase: smollm2-135m-instruct\nchanel: demo\n")
    shown = CliRunner().invoke(app, [command[0], str(sheet), *command[1:], "--json"])
    assert shown.exit_code == 2
    assert "sheet.yaml:3: `chanel` is unknown, did you mean `channel`?" in json.loads(shown.stdout)["message"]
    assert not home.exists()
