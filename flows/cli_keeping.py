"""Commands for whoever keeps the store: sign what was published."""

from __future__ import annotations

import typer

from flows import console_keeping
from flows.answering import JsonOption, VersionArgument, answering, print_answer

keeping = typer.Typer()


@keeping.command()
def sign(version: VersionArgument, as_json: JsonOption = False) -> None:
    """Sign a published version, and those it stands on, with the key that SUTURE_SIGNING_KEY names; promote does so itself.

    For releases older than the key, and for a new key. Each is compared with the approvals it names first.

    Example: `suture sign 3f9a1c2b7d04`
    """
    with answering(as_json) as settings:
        from flows import keeping as flow

        print_answer(flow.sign(settings, version), console_keeping.show_signed, as_json)
