"""What a long run has done so far, on disk: its patches and its points. A run that is started again goes on from there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from editors.patch import Patch, load_patch

FILE = "journal.json"


class Journal:
    """One run's folder. Every record is on disk before the next piece of work begins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / FILE
        content = json.loads(path.read_text()) if path.exists() else {}
        self.batches: list[dict[str, Any]] = content.get("batches", [])
        self.points: list[dict[str, Any]] = content.get("points", [])
        self.stopped: str | None = content.get("stopped")
        """Why the run cannot go on, where it cannot."""

    @property
    def edits(self) -> int:
        """How many edits the patches carry out."""
        return sum(batch["edits"] for batch in self.batches)

    def patches(self) -> Iterator[Patch]:
        """The patches so far, in order, read and verified one by one.

        Raises:
            IntegrityError: a file is damaged.
        """
        for number, entry in enumerate(self.batches):
            yield load_patch(self._at(number), entry["digest"])

    def add_batch(self, patch: Patch, edits: int, cpu_seconds: float, peak_bytes: int) -> None:
        """Keep a patch and what its making took."""
        digest = patch.save(self._at(len(self.batches)))
        self.batches.append({"digest": digest, "edits": edits, "cpu_seconds": cpu_seconds, "peak_bytes": peak_bytes})
        self._save()

    def add_point(self, point: dict[str, Any]) -> None:
        """Keep a point."""
        self.points.append(point)
        self._save()

    def stop(self, reason: str) -> None:
        """Say that the run ends here."""
        self.stopped = reason
        self._save()

    def _at(self, number: int) -> Path:
        return self.folder / f"{number:05d}"

    def _save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = self.folder / f".{FILE}"
        scratch.write_text(json.dumps({"batches": self.batches, "points": self.points, "stopped": self.stopped}, indent=1))
        os.replace(scratch, self.folder / FILE)
