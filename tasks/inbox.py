"""An inbox: sheets lie in a folder or under an `s3://` prefix until a worker takes them, each exactly once.

    INBOX/eiffel.yaml                  waits
    INBOX/claimed/...                  is being carried out; claimed again when its lease ran out, so a crash loses nothing
    INBOX/done/<when>.eiffel.yaml      the gate passed; its answer lies beside it, with `.json` behind the name
    INBOX/refused/<when>.eiffel.yaml   the gate refused, or the sheet is wrong; the answer says why

A sheet is moved and never kept in a second place: it may hold what somebody asked to be forgotten.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from editors.errors import ConfigError, StoreError
from editors.sheet import LINE_SUFFIXES, READERS

Outcome = Literal["done", "refused"]
OUTCOMES: tuple[Outcome, ...] = ("done", "refused")
CLAIMED = "claimed"


@dataclass(frozen=True)
class Terms:
    """How long a claim lasts and when a sheet is given up."""

    lease_seconds: float = 600.0
    """Without a sign of life for so long, a worker is taken for dead. It gives one ten times as often."""
    settle_seconds: float = 2.0
    """A file in a folder that changed more recently may still be being written. On S3 a sheet is there whole."""
    most_attempts: int = 3
    """A sheet whose workers died so often is refused: it kills them."""

    def __post_init__(self) -> None:
        if self.lease_seconds <= 0 or self.settle_seconds < 0 or self.most_attempts < 1:
            raise ConfigError(f"inbox: a lease and attempts must be positive, got {self}")


SHIPPED = Terms()


class Claim(Protocol):
    """One sheet that is this worker's for as long as it shows that it lives."""

    name: str
    """As it was dropped."""
    attempt: int
    """Counts from 1."""

    @property
    def address(self) -> str:
        """Where the sheet lies meanwhile; what `suture edit` takes."""

    def renew(self) -> bool:
        """Show that the worker lives; False when the claim is somebody else's by now."""

    def answered(self) -> tuple[Outcome, dict[str, Any]] | None:
        """The answer that a former worker wrote before it died."""

    def finish(self, outcome: Outcome, document: Mapping[str, Any]) -> bool:
        """Write the answer and move the sheet to it; False when the claim is somebody else's by now."""

    def give_back(self) -> None:
        """Let the next worker claim it at once, and do not count this attempt."""


class Inbox(Protocol):
    """Where sheets wait."""

    @property
    def place(self) -> str:
        """The folder or prefix."""

    def waiting(self) -> tuple[str, ...]:
        """Tickets for `claim`: abandoned sheets first, then new ones by name."""

    def claim(self, ticket: str) -> Claim | None:
        """Take a sheet; None when somebody else was faster."""


@contextmanager
def kept(claim: Claim, every_seconds: float) -> Iterator[None]:
    """Renew the claim from a thread for as long as the block runs."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(every_seconds):
            with suppress(StoreError):
                if not claim.renew():
                    return

    thread = threading.Thread(target=beat, name=f"claim on {claim.name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def is_sheet(name: str) -> bool:
    """Whether a file's name is a sheet's. Hidden files are not: an upload may write one and rename it when it is whole."""
    return not name.startswith(".") and name.casefold().endswith((*READERS, *LINE_SUFFIXES))


def stamp() -> str:
    """This moment, UTC, to the microsecond, in a form that sorts and that a file's name may hold."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")


def written(document: Mapping[str, Any]) -> bytes:
    """An answer as it lies beside its sheet."""
    return json.dumps(document, indent=1, ensure_ascii=False, default=str).encode()
