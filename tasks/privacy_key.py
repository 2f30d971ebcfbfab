"""The key of the seals: with it a request can be recognised, without it a seal tells nothing of what was to be forgotten.

From the environment, or from a file that nobody but its owner can read. It is never stored with what it seals: losing it
loses only the power to recognise a request again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from editors.errors import ConfigError
from tasks.closed_file import check_closed

BYTES = 32
SHORTEST = 32
"""Characters of a key that a person gives; 32 hexadecimal digits are 128 bits."""


@dataclass(frozen=True)
class PrivacyKey:
    """Where the key is: given, or in a file, which is made where it may be."""

    given: SecretStr | None
    file: Path
    may_create: bool = False

    def read(self) -> bytes:
        """The key.

        Raises:
            ConfigError: it is too short, its file is missing, or others may read the file.
        """
        if self.given is not None:
            return _checked(self.given.get_secret_value(), "SUTURE_PRIVACY_KEY")
        if self.may_create and not self.file.exists():
            _create(self.file)
        make = f"openssl rand -hex {BYTES} > {self.file}"
        check_closed(self.file, "the privacy key", make)
        try:
            content = self.file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the privacy key {self.file} cannot be read: {type(error).__name__}",
                              f"(umask 077; {make})") from error
        return _checked(content, str(self.file))


def _checked(text: str, where: str) -> bytes:
    if len(text.strip()) < SHORTEST:
        raise ConfigError(f"the privacy key in {where} has {len(text.strip())} characters, expected {SHORTEST} or more",
                          f"make one: openssl rand -hex {BYTES}")
    return text.strip().encode()


def _create(file: Path) -> None:
    """A new key under its final name, whole and closed to others; of two that race, one is kept."""
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f".{file.name}-{secrets.token_hex(8)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(secrets.token_hex(BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(scratch, file)
    finally:
        scratch.unlink()
