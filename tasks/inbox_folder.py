"""An inbox in a folder: a claim is a rename, which exactly one of several workers can do.

The sheet itself is the claim: `claimed/<when>.<attempt>.<token>.<name>`. Its time stamp is the worker's last sign of life.
Workers on several machines need one file system whose rename is atomic, and clocks that agree to a fraction of the lease.
"""

from __future__ import annotations

import glob
import json
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editors.errors import ConfigError
from tasks.inbox import CLAIMED, OUTCOMES, SHIPPED, Outcome, Terms, is_sheet, stamp, written


@dataclass
class FolderClaim:
    """A sheet under `claimed/`."""

    root: Path
    since: str
    attempt: int
    token: str
    name: str

    @property
    def path(self) -> Path:
        """Where the sheet lies for as long as the claim holds."""
        return self.root / CLAIMED / f"{self.since}.{self.attempt}.{self.token}.{self.name}"

    @property
    def address(self) -> str:
        """The same."""
        return str(self.path)

    def renew(self) -> bool:
        """Set the time stamp."""
        try:
            os.utime(self.path)
        except FileNotFoundError:
            return False
        return True

    def answered(self) -> tuple[Outcome, dict[str, Any]] | None:
        """The answer that was written before the sheet was moved."""
        for outcome in OUTCOMES:
            with suppress(FileNotFoundError):
                return outcome, dict(json.loads(self._answer(outcome).read_text("utf-8")))
        return None

    def finish(self, outcome: Outcome, document: Mapping[str, Any]) -> bool:
        """First the answer, then the sheet: who dies between leaves a claim that needs no second edit."""
        if not self.renew():
            return False
        if self.answered() is None:
            _write(self._answer(outcome), written(document))
        try:
            os.rename(self.path, self.root / outcome / f"{self.since}.{self.name}")
        except FileNotFoundError:
            return False
        for partial in self._answer(outcome).parent.glob(f".{glob.escape(self._answer(outcome).name)}.*"):
            # of a worker that was killed while it wrote
            partial.unlink(missing_ok=True)
        return True

    def give_back(self) -> None:
        """A claim of an earlier attempt that ran out long ago."""
        with suppress(FileNotFoundError):
            os.utime(self.path, (0, 0))
            os.rename(self.path, FolderClaim(self.root, self.since, self.attempt - 1, self.token, self.name).path)

    def _answer(self, outcome: Outcome) -> Path:
        return self.root / outcome / f"{self.since}.{self.name}.json"


@dataclass(frozen=True)
class FolderInbox:
    """Sheets in a folder."""

    root: Path
    terms: Terms = SHIPPED

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.root)

    def waiting(self) -> tuple[str, ...]:
        """Claims that ran out, then the files of the folder that are sheets and no longer change.

        Raises:
            ConfigError: there is no such folder, or it may not be written to.
        """
        try:
            self._furnish()
            abandoned = [f"{CLAIMED}/{path.name}" for path in (self.root / CLAIMED).iterdir() if self._is_over(path)]
            dropped = [path.name for path in self.root.iterdir() if is_sheet(path.name) and self._is_settled(path)]
        except OSError as error:
            raise ConfigError(f"the inbox {self.root} cannot be used: {error.strerror}",
                              f"make a folder that you may write to: mkdir {self.root}") from error
        return (*sorted(abandoned), *sorted(dropped))

    def claim(self, ticket: str) -> FolderClaim | None:
        """Rename the sheet; whoever comes second does not find it."""
        self._furnish()
        path = self.root / ticket
        wanted = _parsed(path.name) if ticket.startswith(f"{CLAIMED}/") else (stamp(), 0, path.name)
        if wanted is None or (path.parent != self.root and not self._is_over(path)):
            return None
        since, attempt, name = wanted
        claim = FolderClaim(self.root, since, attempt + 1, secrets.token_hex(4), name)
        try:
            # first: a claim that looked abandoned for a moment would be taken away at once
            os.utime(path)
            os.rename(path, claim.path)
        except FileNotFoundError:
            return None
        return claim

    def _furnish(self) -> None:
        for name in (CLAIMED, *OUTCOMES):
            (self.root / name).mkdir(exist_ok=True)

    def _is_over(self, path: Path) -> bool:
        return _parsed(path.name) is not None and _age(path) > self.terms.lease_seconds

    def _is_settled(self, path: Path) -> bool:
        return path.is_file() and _age(path) >= self.terms.settle_seconds


def _parsed(held: str) -> tuple[str, int, str] | None:
    """When, attempt and name of a claim's file; None for a file that is none."""
    parts = held.split(".", 3)
    return (parts[0], int(parts[1]), parts[3]) if len(parts) == 4 and parts[1].isdecimal() else None


def _age(path: Path) -> float:
    """Seconds since a file changed; a file that is gone is as new as can be."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return float("-inf")


def _write(path: Path, body: bytes) -> None:
    """Whole or not at all."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with partial.open("xb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    try:
        partial.replace(path)
    except FileNotFoundError:
        # another worker has taken the sheet over, and its answer is there
        if not path.exists():
            raise
