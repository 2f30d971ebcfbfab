"""What a person sees of two versions compared, and of Data Docs that were built."""

from __future__ import annotations

from typing import Any

from flows.console_parts import escaped, gate_table, show_next, show_places, show_transcripts, terminal


def show_compared(answer: dict[str, Any]) -> None:
    """Answers of both, the table, and the page's place."""
    out = terminal()
    worse = [rule["name"] for rule in answer["verdict"]["rules"] if not rule["passed"] and rule["severity"] == "critical"]
    mark = "[bold green]passed[/]" if answer["passed"] else f"[bold red]refused[/] by {escaped(', '.join(worse))}"
    out.rule(f"{answer['after']} beside {answer['before']}: {mark}")
    show_transcripts(out, answer["transcripts"])
    out.print(gate_table(answer["verdict"]["rules"]))
    show_places(out, {"before": answer["before"], "after": answer["after"], "base": answer["base"], "source": answer["source"],
                      "page": answer["page"]})
    show_next(out, answer["next"])


def show_data_docs(answer: dict[str, Any]) -> None:
    """Where the pages begin, and what they need."""
    out = terminal()
    out.print(f"[bold green]Data Docs[/] of {answer['version']}, {answer['rules']} rules: {escaped(answer['index'])}")
    out.print("[dim]They fetch their style and marks from other machines; without a network look at the verdict page.[/]")
    show_next(out, answer["next"])
