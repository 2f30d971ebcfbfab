"""Commands that look closer at versions: by talking to them, by comparing two, by Great Expectations' own pages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli_options import JsonOption, ModelOption, VersionArgument, answering, print_answer


def chat(
    channel: Annotated[str | None, typer.Argument(help="Whose release to talk to. Default: the only channel there is.")] = None,
    version: Annotated[str | None, typer.Option("--version", help="Another version; `base` is the unedited model.")] = None,
    against: Annotated[str | None, typer.Option("--against", help="A second version beside it, or `base`.")] = None,
    temperature: Annotated[float, typer.Option("--temperature", help="0: always the likeliest words. Higher: drawn.")] = 0.0,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Where an answer is cut.")] = 256,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws.")] = 0,
    plain: Annotated[bool, typer.Option("--plain", help="Have each line gone on with, without the chat template.")] = False,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Talk to a version, or to two side by side, in the terminal. They share the memory of one model; nothing is kept.

    `/reset` begins anew, `/quit` or ctrl-d ends. Lines through a pipe are answered one by one, with `--json` in one document. A
    model without a chat template goes on with each line as plain text, which is how sheets ask with `prompt`.

    Example: `suture chat demo --against base`
    """
    with answering(as_json) as settings:
        from flows import console_chat
        from flows.chat import Invited, converse, prepare
        from flows.run import shown
        from validations.conversing import Manner

        manner = Manner(temperature, max_tokens, seed)
        with shown(quiet=as_json):
            found, talks = prepare(settings, Invited(channel, model, version, against), manner, plain=plain)
        is_typed = sys.stdin.isatty() and sys.stdout.isatty()
        screen = (console_chat.KeptScreen() if as_json else
                  console_chat.TerminalScreen() if is_typed else console_chat.PipedScreen())
        converse(talks, [side.title for side in found], screen)


def compare(
    before: VersionArgument,
    after: VersionArgument,
    page: Annotated[Path | None, typer.Option("--page", help="Where the page is written. Default: BEFORE-AFTER.html.")] = None,
    policy: Annotated[str | None, typer.Option("--policy", help="Judge by this policy. Default: no worse than BEFORE.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what one version does beside another of the same base, as a verdict page does; either may be `base`.

    Where AFTER was made on top of BEFORE, that is its own verdict, from the store. Otherwise both are measured on everything
    that either was taught, and AFTER is held to what BEFORE does. Changes nothing.

    Example: `suture compare 3f9a1c2b7d04 81d0be6a90c3 --page both.html`
    """
    with answering(as_json) as settings:
        from flows import console_looking
        from flows.compare import compare_versions
        from flows.run import shown

        with shown(quiet=as_json):
            answer = compare_versions(settings, before, after, page, policy)
        print_answer(answer, console_looking.show_compared, as_json)


def docs(
    version: VersionArgument,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to; new or empty.")],
    as_json: JsonOption = False,
) -> None:
    """Build Great Expectations' Data Docs of a version's verdict: an index, and a page for every rule.

    An extra, for those who are used to them. They fetch style and marks from other machines when they are looked at: without a
    network they are bare. The verdict page needs nothing.

    Example: `suture docs 3f9a1c2b7d04 ./data-docs`
    """
    with answering(as_json) as settings:
        from flows import console_looking
        from flows.data_docs import data_docs

        print_answer(data_docs(settings, version, folder), console_looking.show_data_docs, as_json)
