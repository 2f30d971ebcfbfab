"""Names and places in the experiment tracker: what a version is called, and where the server or the SQLite file is."""

from __future__ import annotations

import fcntl
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from editors.errors import ServiceError

CONNECT_SECONDS = 5.0
REFERENCE = re.compile(r"^models:/(?P<name>[^/@:]+)(?:@(?P<alias>[^/@:]+)|/(?P<number>\d+))$")


@dataclass(frozen=True)
class RegisteredVersion:
    """A model version in the registry."""

    name: str
    number: int
    run_id: str

    @property
    def uri(self) -> str:
        """What `mlflow.pyfunc.load_model` takes."""
        return f"models:/{self.name}/{self.number}"


@dataclass(frozen=True)
class ResolvedModel:
    """What a registered version stands for: a base and the patches on it."""

    version: RegisteredVersion
    base: str
    """The base as its sheet named it."""
    base_digest: str
    base_folder: Path
    """Where the base lay on the machine that registered it."""
    patches: tuple[Path, ...]
    """Folders of the stack, in order, fetched and verified."""


@dataclass(frozen=True)
class ChannelTruth:
    """Where a channel stands by the object store: candidate digests; None for the unedited base or none at all."""

    model: str
    channel: str
    champion: str | None
    previous: str | None


def registered_name(model: str, channel: str) -> str:
    """The registered model of one line of releases; its aliases speak of that line only."""
    return f"{model}.{channel}"


def check_reachable(tracking_uri: str) -> None:
    """Find out at once when nobody listens at a server's address.

    Raises:
        ServiceError: nothing answers.
    """
    parts = urlsplit(tracking_uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return
    # MLflow itself would try again for minutes before it says that nobody listens
    try:
        socket.create_connection((parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)),
                                 timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ServiceError(f"nothing answers at the MLflow server {tracking_uri}: {error}",
                           "start it, or unset SUTURE_MLFLOW_URI to use SQLite in the home") from error


def _sqlite_file(tracking_uri: str) -> Path | None:
    return Path(tracking_uri.removeprefix("sqlite:///")) if tracking_uri.startswith("sqlite:///") else None


def exists(tracking_uri: str) -> bool:
    """Whether there is anything to ask: a server, or an SQLite file made before."""
    file = _sqlite_file(tracking_uri)
    return file is None or file.exists()


@contextmanager
def only_here(tracking_uri: str) -> Iterator[None]:
    """No other process inside at the same time: of two that create an SQLite database's tables at once, one fails."""
    file = _sqlite_file(tracking_uri)
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
