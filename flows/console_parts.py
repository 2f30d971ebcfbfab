"""Pieces that what a person sees is made of: tables, places, what to type next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

ROLES = {
    "edit": "Edits", "paraphrase": "Paraphrases, not in the requests", "neighbour": "Neighbours, to stay as they are",
    "implication": "What follows from the edits", "unsafe": "Unsafe prompts", "unseen_unsafe": "Unsafe prompts, never shown",
    "wrapped": "Unsafe prompts in a trick",
    "benign": "Harmless prompts", "unseen_benign": "Harmless prompts, never shown"}
SHOWN_PER_ROLE = {"edit": 20, "paraphrase": 12, "neighbour": 10, "implication": 6, "unsafe": 8, "unseen_unsafe": 8,
                  "wrapped": 6, "benign": 6, "unseen_benign": 6}


def terminal() -> Console:
    """Standard output; a pipe or a log has no width of its own, and tables need one."""
    from rich.console import Console

    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=132)


def escaped(text: str) -> str:
    """Text that rich takes as it stands."""
    from rich.markup import escape

    return escape(text)


def brief(text: str | None, limit: int = 160) -> str:
    """On one line, cut where it is long."""
    flat = " ".join((text or "").split())
    return flat if len(flat) <= limit else flat[:limit - 1] + "…"


def span(layers: Sequence[int]) -> str:
    """Layers as people write them: 4-8, or one by one."""
    whole = len(layers) > 2 and list(layers) == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]}-{layers[-1]}" if whole else ", ".join(map(str, layers))


def show_next(out: Console, commands: Sequence[str]) -> None:
    """What to type next."""
    if commands:
        out.print("[bold]Next[/]")
    for command in commands:
        out.print(f"  {escaped(command)}", soft_wrap=True)


def show_places(out: Console, places: dict[str, Any]) -> None:
    """Names and where they are, a line each; None is left out."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in places.items():
        if value is not None:
            table.add_row(name, escaped(str(value)))
    out.print(table)


def show_transcripts(out: Console, transcripts: Sequence[dict[str, Any]]) -> None:
    """What was asked and answered, a table for each role."""
    from rich.table import Table

    for role, title in ROLES.items():
        rows = [row for row in transcripts if row["role"] == role]
        if not rows:
            continue
        shown = rows[:SHOWN_PER_ROLE[role]]
        more = f" ({len(shown)} of {len(rows)})" if len(shown) < len(rows) else ""
        table = Table(title=title + more, title_justify="left", show_lines=False, expand=True)
        for heading, ratio in (("asked", 4), ("expected", 2), ("before", 4), ("after", 4)):
            table.add_column(heading, ratio=ratio, overflow="fold")
        for row in shown:
            table.add_row(*(escaped(brief(row[key])) for key in ("prompt", "expected", "parent", "candidate")))
        out.print(table)


def gate_table(rules: Sequence[dict[str, Any]]) -> Table:
    """A verdict's rules, a row each."""
    from rich.table import Table

    from validations.contract import OF_PARENT

    table = Table(title="The gate", title_justify="left")
    for heading in ("", "rule", "limit", "observed", "weight", "to blame"):
        table.add_column(heading, overflow="fold")
    for rule in rules:
        failed = "[bold red]FAIL[/]" if rule["severity"] == "critical" else "[yellow]warn[/]"
        mark = "[green]pass[/]" if rule["passed"] else failed
        observed = rule["observed"]
        value = f"{observed:.4g}" if isinstance(observed, float) else str(observed if observed is not None else "-")
        value += " x" if rule["limit"].endswith(OF_PARENT) else ""
        blame = ", ".join(rule["blame"][:3]) + (f" and {len(rule['blame']) - 3} more" if len(rule["blame"]) > 3 else "")
        told = (escaped(value), rule["severity"], escaped("" if rule["passed"] else blame))
        table.add_row(mark, rule["name"], rule["limit"], *told)
    return table
