"""What a command was about to do, on disk until it is done: begun again after a kill it goes on, and does nothing twice.

Only a step that is relative to where a channel stands needs it: "one back", said twice, would be two back.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from editors.digest import digest_document
from tasks.manifest import Cause, Pointer


@contextmanager
def one_back(folder: Path, pointer: Pointer, cause: Cause) -> Iterator[str]:
    """The digest of the ledger entry at which the channel stood when this very command was begun first.

    Args:
        folder: Where intents are kept; one file for a channel.
        pointer: Where the channel stands now.
        cause: Who does it and why; the same again is the same command.

    A block that fails leaves the intent: whether the pointer moved may not be known.
    """
    path = folder / f"{pointer.model}.{pointer.channel}.json"
    asked = digest_document({"by": cause.by, "reason": cause.reason})
    began = _entry_of(path, asked)
    if began is None or began not in (pointer.entry.digest, pointer.entry.previous):
        began = pointer.entry.digest
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    partial.write_text(json.dumps({"asked": asked, "entry": began}))
    os.replace(partial, path)
    yield began
    path.unlink(missing_ok=True)


def _entry_of(path: Path, asked: str) -> str | None:
    """The entry of an unfinished command of the same words; None where there is none, or what is there cannot be read."""
    try:
        kept = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return kept.get("entry") if isinstance(kept, dict) and kept.get("asked") == asked else None
