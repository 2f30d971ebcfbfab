"""How the answers of the store-keeping commands look to people."""

from __future__ import annotations

from typing import Any

from flows.console_parts import escaped, show_next, terminal


def show_signed(answer: dict[str, Any]) -> None:
    """What bears a signature now."""
    terminal().print(f"[bold green]Signed[/] by {answer['signer']}: {', '.join(answer['signed'])}")


def show_collected(answer: dict[str, Any]) -> None:
    """What was put aside and removed, or would be."""
    from rich.table import Table

    out = terminal()
    done = "Would be done" if answer["dry_run"] else "Done"
    table = Table(title=f"{done} in {escaped(answer['store'])}", title_justify="left")
    for heading in ("what", "object", "why", "written", "MiB"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "MiB" else "left")
    for row in answer["rows"]:
        table.add_row(row["what"], escaped(row["key"]), escaped(row["why"]), row["written"], f"{row['bytes'] / 2**20:.2f}")
    if answer["rows"]:
        out.print(table)
    for key in answer["restored"]:
        out.print(f"put back: {escaped(key)}, which is named again")
    out.print(f"{len(answer['rows'])} objects, {answer['bytes'] / 2**20:.2f} MiB removed for good; "
              f"{answer['kept_objects']} objects stay." if not answer["dry_run"] else f"{answer['kept_objects']} objects stay.")
    show_next(out, answer["next"])
