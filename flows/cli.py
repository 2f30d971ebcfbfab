"""The command line. Each command is one flow or one question; heavy libraries load inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from editors.errors import ConfigError
from flows import cli_keeping, cli_rounds, cli_serving, console
from flows.cli_options import (
    BaseArgument,
    ByOption,
    ChannelArgument,
    JsonOption,
    ModelOption,
    PromotionReasonOption,
    ReasonOption,
    SheetArgument,
    VersionArgument,
    answering,
)
from flows.cli_options import print_answer as _print

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Edit a language model that is in production, without retraining.

A **sheet** says what the model must answer from now on. `suture edit sheet.yaml` locates, edits, measures and judges;
a version that passes waits for a person's **approve**; **promote** publishes it to the channel; **rollback** takes the
channel back, bit for bit.

Start here: `suture edit examples/facts.yaml --dry-run`
""",
)

@app.command()
def edit(
    sheet: SheetArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would do and cost; change nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Carry out a sheet: locate, edit, measure, judge, register; publish where the channel's policy approves by itself.

    Starts from the channel's current release, so edits build on edits. Running the same command again finishes what was
    cut short and repeats nothing. Exit code 0: the gate passed. 3: it refused, and the version is kept as `refused`.

    Example: `suture edit examples/identity.yaml`
    """
    with answering(as_json) as settings:
        from flows import run

        if dry_run:
            _print(run.dry_run(settings, sheet, quiet=as_json), console.show_plan, as_json)
            return
        answer = run.edit(settings, sheet, quiet=as_json)
        _print(answer, console.show_edit, as_json)
        if not answer["passed"]:
            raise typer.Exit(3)


@app.command()
def locate(sheet: SheetArgument, as_json: JsonOption = False) -> None:
    """Show where the model holds what a sheet is about: causal tracing over layers, as a table and a picture.

    Example: `suture locate examples/facts.yaml`
    """
    with answering(as_json) as settings:
        from flows import run

        _print(run.locate(settings, sheet, quiet=as_json), console.show_location, as_json)


@app.command()
def measure(
    sheet: SheetArgument,
    version: Annotated[str | None, typer.Option("--version", help="Which version. Default: the channel's release.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a version on a sheet's requests against the unedited base, and show what the gate would say. Changes nothing.

    Example: `suture measure examples/facts.yaml --version 3f9a1c2b7d04`
    """
    with answering(as_json) as settings:
        from flows import run

        _print(run.measure(settings, sheet, version, quiet=as_json), console.show_measured, as_json)


@app.command()
def warm(
    model: BaseArgument,
    layers: Annotated[str | None, typer.Option("--layers", help="Such as `3-7,15`, or `all`. Default: the calibrated.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compute a model's statistics ahead, so that its first edit starts in seconds. Run again, it does nothing.

    Example: `suture warm smollm2-135m-instruct`
    """
    with answering(as_json) as settings:
        from flows import run

        _print(run.warm(settings, model, layers, quiet=as_json), console.show_warmed, as_json)


@app.command()
def calibrate(
    model: BaseArgument,
    facts: Annotated[str | None, typer.Option("--facts", help="JSON lines: prompt, subject, answer, paraphrases.")] = None,
    method: Annotated[list[str] | None, typer.Option("--method", help="Only this one; may be given again.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Find each method's layers and options for a model, by editing facts that it knows. Later edits of this model use them.

    Example: `suture calibrate smollm2-135m-instruct --method memit`
    """
    with answering(as_json) as settings:
        from flows import run

        _print(run.calibrate(settings, model, facts, method or [], quiet=as_json), console.show_calibrated, as_json)


@app.command()
def approve(
    version: VersionArgument,
    by: ByOption = None,
    reason: ReasonOption = "",
    refuse: Annotated[bool, typer.Option("--refuse", help="Decide against it instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Decide on one exact candidate. The decision is bound to its digest, written once, and cannot be changed.

    Example: `suture approve 3f9a1c2b7d04 --by ann --reason "checked the ten worst neighbours"`
    """
    with answering(as_json) as settings:
        from flows import release

        if not reason:
            raise ConfigError("a decision needs a reason", 'add --reason "..."')
        answer = release.approve(settings, version, by or settings.user, reason, refuse=refuse)
        _print(answer, console.show_decision, as_json)


@app.command()
def promote(
    version: VersionArgument, by: ByOption = None, reason: PromotionReasonOption = None, as_json: JsonOption = False
) -> None:
    """Publish an approved version and move its channel to it. Of two at once, one wins; the other is told who did.

    Example: `suture promote 3f9a1c2b7d04`
    """
    with answering(as_json) as settings:
        from flows import run

        answer = run.promote(settings, version, by or settings.user, reason, quiet=as_json)
        _print(answer, console.show_promotion, as_json)


@app.command()
def rollback(
    channel: ChannelArgument,
    to: Annotated[str | None, typer.Option("--to", help="The version to return to. Default: the one before.")] = None,
    by: ByOption = None,
    reason: ReasonOption = "rolled back by hand",
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a channel back to the version before, bit for bit. Nothing is deleted.

    Example: `suture rollback demo --reason "complaints about tone"`
    """
    with answering(as_json) as settings:
        from flows import run

        answer = run.rollback(settings, channel, to, by or settings.user, reason, model, quiet=as_json)
        _print(answer, console.show_rollback, as_json)


@app.command()
def remove(
    version: VersionArgument,
    channel: Annotated[str, typer.Option("--from", help="The channel whose release is to lose the edit.")],
    policy: Annotated[str | None, typer.Option("--policy", help="A gate policy's file. Default: `removal`.")] = None,
    reason: ReasonOption = "taken out by hand",
    as_json: JsonOption = False,
) -> None:
    """Take the edit that a version brought out of a channel's release, from wherever it stands in the stack.

    The remaining edits are applied in order on the base, and every request of theirs is measured again: each must hold as
    it does in the present release. The result is a new version, judged, approved and promoted like an edit. Exit code 0:
    the gate passed. 3: it refused, and the version is kept as `refused`.

    Example: `suture remove 3f9a1c2b7d04 --from demo --reason "the fact was wrong"`
    """
    with answering(as_json) as settings:
        from flows import run

        answer = run.remove(settings, version, channel, policy, reason, quiet=as_json)
        _print(answer, console.show_edit, as_json)
        if not answer["passed"]:
            raise typer.Exit(3)


@app.command()
def pull(
    targets: Annotated[list[str], typer.Argument(metavar="[S3_URL] [CHANNEL] FOLDER", help="Where from, and the folder.")],
    version: Annotated[str | None, typer.Option("--version", help="A version instead of a channel; refused ones too.")] = None,
    base: Annotated[str | None, typer.Option("--base", help="An unedited base instead: its plain folder.")] = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch a model as a plain Hugging Face folder, every byte verified. The folder must be new or empty.

    Examples: `suture pull demo ./model`, `suture pull s3://bucket/prefix stable ./model`,
    `suture pull --version 3f9a1c2b7d04 ./model`
    """
    with answering(as_json) as settings:
        from flows import release

        *places, folder = targets
        url = places.pop(0) if places and places[0].startswith("s3://") else None
        if len(places) + (version is not None) + (base is not None) != 1:
            raise ConfigError(f"pull needs exactly one of CHANNEL, --version and --base, got {targets}",
                              "suture pull demo ./model")
        answer = release.pull(settings, Path(folder), url, places[0] if places else None, version, base, model)
        _print(answer, console.show_pulled, as_json)


@app.command()
def history(channel: ChannelArgument, model: ModelOption = None, as_json: JsonOption = False) -> None:
    """Who put what into a channel, when, why, and on which verdict.

    Example: `suture history demo`
    """
    with answering(as_json) as settings:
        from flows import release

        _print(release.history(settings, channel, model), console.show_history, as_json)


@app.command()
def show(version: VersionArgument, as_json: JsonOption = False) -> None:
    """One version: its requests, verdict, decision, patch, parent, files, and where they are.

    Example: `suture show 3f9a1c2b7d04`
    """
    with answering(as_json) as settings:
        from flows import release

        _print(release.show(settings, version), console.show_version, as_json)


for command in (cli_rounds.inbox, cli_rounds.verify, cli_rounds.serve, cli_rounds.team, cli_rounds.approvals,
                cli_keeping.sign, cli_keeping.gc, cli_serving.serve_model, cli_serving.listen):
    app.command()(command)


def main() -> None:
    """The entry point of the command `suture`."""
    import logging
    import sys

    handler = logging.StreamHandler(sys.stderr)
    # libraries that set their own loggers to INFO would talk into our progress
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or record.name == "suture")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("suture").setLevel(logging.INFO)
    app()
