"""How the answers of the store-keeping commands look to people."""

from __future__ import annotations

from typing import Any

from flows.console import _console


def show_signed(answer: dict[str, Any]) -> None:
    """What bears a signature now."""
    _console().print(f"[bold green]Signed[/] by {answer['signer']}: {', '.join(answer['signed'])}")
