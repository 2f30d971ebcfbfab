"""What every command does alike: read the settings, answer for people or as JSON, and turn typed errors into exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from editors.errors import SutureError
from flows import console
from flows.settings import Settings, read_settings

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, nothing else.")]
VersionArgument = Annotated[str, typer.Argument(help="A version as `suture edit` prints it, or its unique beginning.")]


@contextmanager
def answering(as_json: bool) -> Iterator[Settings]:
    """Give the settings, and turn a typed error into a message and its exit code."""
    try:
        yield read_settings()
    except SutureError as error:
        console.show_error(error, as_json)
        raise typer.Exit(error.exit_code) from error


def print_answer(answer: dict[str, Any], show: Any, as_json: bool) -> None:
    """Print one JSON document, or let `show` tell it to people."""
    console.show_json(answer) if as_json else show(answer)
