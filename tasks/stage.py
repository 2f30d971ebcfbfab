"""A stage's output lives at an address made from its inputs; a stage looks there before it works.

Resuming is running the same command again: finished stages are found, verified by digest and used, a stage that a kill
cut short left only a scratch folder and runs again. Nothing depends on Prefect's result store.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editors.digest import digest_document, digest_file
from editors.errors import IntegrityError

RECORD = "record.json"
SEAL = "sha256"
"""Digest of the rest of a record. Those of older versions have none, and nothing else beside the other three."""
PARTS = {"inputs", "document", "files"}


@dataclass(frozen=True)
class Finished:
    """A finished stage: its folder, its JSON document, and whether it was found rather than made."""

    folder: Path
    document: dict[str, Any]
    digest: str
    reused: bool


@dataclass(frozen=True)
class Workspace:
    """The folder under which every stage of one Suture home keeps its output."""

    root: Path

    def run(self, name: str, inputs: Mapping[str, Any], work: Callable[[Path], Mapping[str, Any]]) -> Finished:
        """Find the stage's output, or make it.

        Args:
            name: The stage, with a version where its algorithm changed: `locate`, `edit`.
            inputs: JSON that names every input by value or digest.
            work: Writes files into the folder it is given and returns a JSON document about them.

        Returns:
            The finished stage. `digest` covers the document and every file.
        """
        address = digest_document({"stage": name, "inputs": dict(inputs)})
        target = self.root / name / address[:32]
        found = self._find(target)
        if found is not None:
            return found
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
        try:
            document = dict(work(scratch))
            _write_record(scratch, dict(inputs), document)
            # another process may have finished the same stage first: its output is as good as ours
            with contextlib.suppress(OSError):
                os.replace(scratch, target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        made = self._find(target)
        if made is None:
            raise IntegrityError(f"the stage {name} left no output in {target}", "check the disk, then run the command again")
        return Finished(made.folder, made.document, made.digest, reused=False)

    def _find(self, target: Path) -> Finished | None:
        record = _read_record(target)
        if record is not None:
            return Finished(target, record["document"], digest_document(record), reused=True)
        if target.exists():
            # damaged at rest: set aside for inspection, never used
            os.replace(target, Path(tempfile.mkdtemp(dir=target.parent, prefix=f".damaged-{target.name}-")) / "stage")
        return None


def _read_record(folder: Path) -> dict[str, Any] | None:
    """The record without its seal, where it and every file are as they were written."""
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
        seal = record.pop(SEAL, None)
        is_whole = record.keys() == PARTS and seal in (None, digest_document(record)) and all(
            digest_file(folder / path) == digest for path, digest in record["files"].items())
    except (OSError, ValueError, AttributeError, TypeError):
        return None
    return record if is_whole else None


def _write_record(folder: Path, inputs: dict[str, Any], document: dict[str, Any]) -> None:
    files = {str(path.relative_to(folder)): digest_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    record = {"inputs": inputs, "document": document, "files": files}
    # as it is read back: numbers and keys as JSON has them
    seal = digest_document(json.loads(json.dumps(record)))
    text = json.dumps({**record, SEAL: seal}, sort_keys=True, ensure_ascii=False)
    path = folder / RECORD
    with path.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
