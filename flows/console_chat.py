"""A talk on a terminal, in columns; through a pipe, in plain lines; or kept for one JSON document."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from editors.errors import ConfigError
from flows.console import show_error, show_json
from flows.console_parts import escaped, terminal

if TYPE_CHECKING:
    from rich.table import Table

FORMS = {"chat": "in the chat template: what was said before counts", "plain": "as plain text: each line by itself"}


@dataclass
class TerminalScreen:
    """A column for each version, growing as it speaks."""

    _titles: tuple[str, ...] = ()

    def open(self, titles: Sequence[str], form: str) -> None:
        """Say who is there and how to leave."""
        self._titles = tuple(titles)
        out = terminal()
        out.print(f"[bold]{escaped(' | '.join(titles))}[/], {FORMS[form]}")
        out.print("[dim]/reset begins anew, /quit or ctrl-d ends[/]")

    def ask(self) -> str | None:
        """A line typed; the arrow keys work where Python has readline."""
        import contextlib

        with contextlib.suppress(ImportError):
            import readline  # noqa: F401
        try:
            return input("> ")
        except (EOFError, KeyboardInterrupt):
            return None

    def show(self, line: str, answers: Iterator[tuple[str, ...]]) -> None:  # noqa: ARG002 (it was typed here)
        """Columns that grow; ctrl-c cuts the answers short."""
        from contextlib import suppress

        from rich.live import Live

        with Live(console=terminal(), refresh_per_second=12) as live, suppress(KeyboardInterrupt):
            for said in answers:
                live.update(self._columns(said))

    def tell(self, error: ConfigError) -> None:
        """The error, and the talk goes on."""
        show_error(error, as_json=False)

    def close(self) -> dict[str, Any]:
        """Nothing more."""
        return {}

    def _columns(self, said: Sequence[str]) -> Table:
        from rich.table import Table

        table = Table(expand=True)
        for title in self._titles:
            table.add_column(escaped(title), ratio=1, overflow="fold")
        table.add_row(*map(escaped, said))
        return table


@dataclass
class PipedScreen:
    """One line in, a line of each version out."""

    lines: TextIO = field(default_factory=lambda: sys.stdin)
    _titles: tuple[str, ...] = ()

    def open(self, titles: Sequence[str], form: str) -> None:  # noqa: ARG002 (the lines speak for themselves)
        """Remember who is there."""
        self._titles = tuple(titles)

    def ask(self) -> str | None:
        """The next line of the pipe."""
        return self.lines.readline() or None

    def show(self, line: str, answers: Iterator[tuple[str, ...]]) -> None:
        """The line and every whole answer, each after its version's name."""
        self.put(f"> {line}")
        *_, whole = answers
        for title, said in zip(self._titles, whole, strict=True):
            self.put(f"{title}: {said}")

    def tell(self, error: ConfigError) -> None:
        """The error on standard error, and the talk goes on."""
        show_error(error, as_json=False)

    def close(self) -> dict[str, Any]:
        """Nothing more."""
        return {}

    def put(self, text: str) -> None:
        """A line at once, for whoever reads the other end."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


@dataclass
class KeptScreen:
    """Lines of a pipe; everything said in one document at the end."""

    lines: TextIO = field(default_factory=lambda: sys.stdin)
    _document: dict[str, Any] = field(default_factory=dict)

    def open(self, titles: Sequence[str], form: str) -> None:
        """Begin the document."""
        self._document = {"versions": list(titles), "form": form, "turns": []}

    def ask(self) -> str | None:
        """The next line of the pipe."""
        return self.lines.readline() or None

    def show(self, line: str, answers: Iterator[tuple[str, ...]]) -> None:
        """Keep the whole answers."""
        *_, whole = answers
        self._document["turns"].append({"asked": line, "answers": list(whole)})

    def tell(self, error: ConfigError) -> None:
        """Keep the error in the answer's place."""
        self._document["turns"].append({"error": error.message, "next": error.hint})

    def close(self) -> dict[str, Any]:
        """The document."""
        show_json(self._document)
        return self._document
