"""Sheets at their addresses. One that lies in a folder is read before anything is started for it."""

from __future__ import annotations

from pathlib import Path

from editors.errors import SheetError
from editors.sheet import Sheet, parse_sheet


def is_stored(address: str) -> bool:
    """Whether the sheet lies in a store, and not in a folder."""
    return address.startswith("s3://")


def local_sheet(address: str) -> Sheet:
    """The sheet at a path.

    Raises:
        SheetError: it cannot be read, or has problems; all are listed.
    """
    path = Path(address).expanduser()
    try:
        return parse_sheet(path.read_bytes(), str(path))
    except OSError as error:
        raise SheetError(f"the sheet {address} cannot be read: {error.strerror}", "suture edit PATH_TO_SHEET") from error
