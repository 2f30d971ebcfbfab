"""What the commands share: how their arguments are said, where their answers go, how their errors come out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from editors.errors import SutureError
from flows import console
from flows.settings import Settings, read_settings

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, nothing else.")]
SheetArgument = Annotated[str, typer.Argument(help="Edit sheet: YAML, JSON or JSONL; a file or s3://bucket/key.")]
BaseArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A base as a sheet names it: packaged, folder, hub id, s3://.")]
VersionArgument = Annotated[str, typer.Argument(help="A version as `suture edit` prints it, or its unique beginning.")]
ChannelArgument = Annotated[str, typer.Argument(help="A line of releases, for example `demo`.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="The model's name, where several have this channel.")]
ByOption = Annotated[str | None, typer.Option("--by", help="Who decides. Default: the user running this.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept in the ledger.")]
PromotionReasonOption = Annotated[
    str | None, typer.Option("--reason", help="Why; kept in the ledger. Default: what those said who approved it.")]


@contextmanager
def answering(as_json: bool) -> Iterator[Settings]:
    """Give the settings, and turn a typed error into a message and its exit code."""
    from flows.logs import begin_logs

    try:
        settings = read_settings()
        begin_logs(settings.log_format)
        yield settings
    except SutureError as error:
        console.show_error(error, as_json)
        raise typer.Exit(error.exit_code) from error


def print_answer(answer: dict[str, Any], show: Any, as_json: bool) -> None:
    """For people by `show`, or as one JSON document."""
    console.show_json(answer) if as_json else show(answer)
