"""Commands for whoever keeps the store: sign what was published, remove what nothing names any more."""

from __future__ import annotations

from typing import Annotated

import typer

from flows import console_keeping
from flows.cli_options import JsonOption, VersionArgument, answering, print_answer


def sign(version: VersionArgument, as_json: JsonOption = False) -> None:
    """Sign a published version, and those it stands on, with the key that SUTURE_SIGNING_KEY names; promote does so itself.

    For releases older than the key, and for a new key. Each is compared with the approvals it names first.

    Example: `suture sign 3f9a1c2b7d04`
    """
    with answering(as_json) as settings:
        from flows import keeping as flow

        print_answer(flow.sign(settings, version), console_keeping.show_signed, as_json)


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would do; change nothing.")] = False,
    older_than: Annotated[float, typer.Option("--older-than", help="Days that refused and superseded candidates stay.")] = 30,
    grace: Annotated[float, typer.Option("--grace", help="Hours that a publish may take at most.")] = 24,
    as_json: JsonOption = False,
) -> None:
    """Put aside what no release and no open candidate names, and remove what lay aside for the grace period.

    What a release names is never removed, not while a publish runs either: what lies aside is read as before, and is put
    back when something names it again. A record that cannot be read stops it before anything is touched.

    Example: `suture gc --dry-run`
    """
    with answering(as_json) as settings:
        from flows import keeping as flow

        print_answer(flow.collect(settings, older_than, grace, dry_run=dry_run), console_keeping.show_collected, as_json)
