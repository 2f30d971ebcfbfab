"""Files that nobody but their owner may read."""

from __future__ import annotations

import stat
from pathlib import Path

from editors.errors import ConfigError


def check_closed(file: Path, what: str, make: str) -> None:
    """Refuse a file that is missing or that others may read; `make` is a command that makes one.

    Raises:
        ConfigError: it is missing or open; names its mode.
    """
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError as error:
        raise ConfigError(f"{what} {file} cannot be read: {type(error).__name__}", f"(umask 077; {make})") from error
    if mode & 0o077:
        raise ConfigError(f"{what} {file} can be read by others: its mode is {mode:04o}, expected 0600", f"chmod 600 {file}")
