"""What a person sees of two versions compared, and of Data Docs that were built."""

from __future__ import annotations

from typing import Any

from flows.console import _console, _next, _places, _rules, _safe, _transcripts


def show_compared(answer: dict[str, Any]) -> None:
    """Answers of both, the table, and the page's place."""
    out = _console()
    worse = [rule["name"] for rule in answer["verdict"]["rules"] if not rule["passed"] and rule["severity"] == "critical"]
    mark = "[bold green]passed[/]" if answer["passed"] else f"[bold red]refused[/] by {_safe(', '.join(worse))}"
    out.rule(f"{answer['after']} beside {answer['before']}: {mark}")
    _transcripts(out, answer["transcripts"])
    out.print(_rules(answer["verdict"]["rules"]))
    _places(out, {"before": answer["before"], "after": answer["after"], "base": answer["base"], "source": answer["source"],
                  "page": answer["page"]})
    _next(out, answer["next"])


def show_data_docs(answer: dict[str, Any]) -> None:
    """Where the pages begin, and what they need."""
    out = _console()
    out.print(f"[bold green]Data Docs[/] of {answer['version']}, {answer['rules']} rules: {_safe(answer['index'])}")
    out.print("[dim]They fetch their style and marks from other machines; without a network look at the verdict page.[/]")
    _next(out, answer["next"])
