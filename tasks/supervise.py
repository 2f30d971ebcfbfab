"""Keep one embedded server for one Suture home, shared by every Suture process there, and stopped by itself.

Two sides meet over files in `HOME/<service>/`. A *user* process holds a shared lock on `users.lock` for as long as it needs
the server; the kernel frees that lock however the process ends. The *supervisor*, a small detached process, is the server's
parent: it waits for the exclusive lock (no users left), lingers for a next command, stops the server and leaves.

    users.lock    shared by users, exclusive while the server stops; its time stamp is the last coming or going
    start.lock    at most one process decides whether to start a server
    server.json   the running server, named by pid and create time: a pid alone may belong to somebody else by now
    server.log    what the server prints, one earlier run kept as server.log.1
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from editors.errors import ServiceError

LOCK_TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 0.05
LOG_TAIL_LINES = 15
START_ATTEMPTS = 3
# Below Linux's ephemeral range, so that no outgoing connection takes a port between our look and the server's bind.
PORT_RANGE = range(20_000, 32_000)
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class ProcessIdentity:
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    create_time: float

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """The identity of a process that runs now.

        Raises:
            psutil.NoSuchProcess: When it does not.
        """
        return cls(pid, psutil.Process(pid).create_time())

    def process(self) -> psutil.Process | None:
        """The live process, or None when it ended, is a zombie, or its pid belongs to another one."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.create_time) < 0.01
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


@dataclass(frozen=True)
class RunningService:
    """One running server as `server.json` records it."""

    name: str
    directory: Path
    port: int
    server: ProcessIdentity
    supervisor: ProcessIdentity
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_alive(self) -> bool:
        """Whether both the server and its supervisor run."""
        return self.server.process() is not None and self.supervisor.process() is not None


@dataclass(frozen=True)
class ServiceSpec:
    """What to run, and how to tell that it is up."""

    name: str
    """Name of the service, and of its folder in the home."""
    command: Callable[[int, Path], Sequence[str]]
    """Builds the command line from the first port and the service's folder."""
    environment: Callable[[Path], Mapping[str, str]]
    """Builds the server's whole environment from the service's folder."""
    is_ready: Callable[[RunningService], bool]
    """Asks the server itself; raises nothing."""
    port_count: int = 1
    """Free consecutive ports the server needs."""
    details: Mapping[str, str] = field(default_factory=dict)
    """Facts every user of this home must agree on, such as the scheme; recorded with the server. No secrets."""
    start_timeout_seconds: float = 90.0
    """Time to become ready. A server that dies is noticed at once."""
    stop_grace_seconds: float = 2.0
    """Time between SIGTERM and SIGKILL."""
    linger_seconds: float = 30.0
    """Time the server stays up for a next command after its last user has gone."""


class ServiceHandle:
    """A claim on a running or starting server; the server lives at least until `close`."""

    def __init__(self, spec: ServiceSpec, home: Path) -> None:
        self.spec = spec
        self.directory = home / spec.name
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._users_lock: int | None = _lock(self.directory / "users.lock", fcntl.LOCK_SH)
        try:
            os.utime(self.directory / "users.lock")
            self.running = self._find_or_start()
        except BaseException:
            self.close()
            raise

    def wait_ready(self) -> RunningService:
        """Return the server once it answers.

        Raises:
            ServiceError: When the server dies while starting, or is not ready in `start_timeout_seconds`.
        """
        deadline = time.monotonic() + self.spec.start_timeout_seconds
        attempts = START_ATTEMPTS
        while not self.spec.is_ready(self.running):
            if not self.running.is_alive:
                attempts -= 1
                if not attempts or "address already in use" not in _log_tail(self.directory):
                    raise _failure(self.spec, self.directory, "died while starting")
                self.running = self._find_or_start()
            elif time.monotonic() > deadline:
                raise _failure(self.spec, self.directory, f"was not ready in {self.spec.start_timeout_seconds:g} s")
            time.sleep(POLL_SECONDS)
        return self.running

    def close(self) -> None:
        """Give up the claim. The last one to do so lets the server stop. Safe to call twice."""
        if self._users_lock is not None:
            os.utime(self.directory / "users.lock")
            os.close(self._users_lock)
            self._users_lock = None

    def __enter__(self) -> RunningService:
        return self.wait_ready()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _find_or_start(self) -> RunningService:
        start_lock = _lock(self.directory / "start.lock", fcntl.LOCK_EX)
        try:
            running = _read_record(self.directory)
            if running is None or not running.is_alive:
                _clear_remains(running)
                running = _spawn_supervisor(self.spec, self.directory)
        finally:
            os.close(start_lock)
        if dict(running.details) != dict(self.spec.details):
            raise ServiceError(
                f"the {self.spec.name} server of {self.directory} runs with {dict(running.details)}, "
                f"asked for {dict(self.spec.details)}",
                hint="wait until the other command has ended, or use another home",
            )
        return running


def begin(spec: ServiceSpec, home: Path) -> ServiceHandle:
    """Claim the server of one home and start it when none runs; does not wait until it is ready.

    Raises:
        ServiceError: When no server could be launched, or one with other `details` runs there.
    """
    return ServiceHandle(spec, home)


@contextmanager
def supervised(spec: ServiceSpec, home: Path) -> Iterator[RunningService]:
    """A ready server for the length of a `with` block.

    Raises:
        ServiceError: See `begin` and `ServiceHandle.wait_ready`.
    """
    with begin(spec, home) as running:
        yield running


def free_ports(count: int) -> int:
    """The first of `count` consecutive loopback ports that nobody listens on.

    Raises:
        ServiceError: When none is found in 200 tries.
    """
    chooser = random.SystemRandom()
    for _ in range(200):
        first = chooser.randrange(PORT_RANGE.start, PORT_RANGE.stop - count)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise ServiceError(f"no {count} free consecutive ports in {PORT_RANGE.start}-{PORT_RANGE.stop} on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _lock(path: Path, mode: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise ServiceError(
                    f"{path} has been held by another process for {LOCK_TIMEOUT_SECONDS:g} s",
                    hint=f"see who holds it: fuser -v {path}",
                ) from None
            time.sleep(POLL_SECONDS)


def _read_record(directory: Path) -> RunningService | None:
    try:
        record = json.loads((directory / "server.json").read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    identities = {role: ProcessIdentity(**record.pop(role)) for role in ("server", "supervisor")}
    return RunningService(name=directory.name, directory=directory, **record, **identities)


def _clear_remains(running: RunningService | None) -> None:
    """Wait for what is left of an earlier server: two servers must never share one data folder."""
    if running is None:
        return
    for identity in (running.server, running.supervisor):
        process = identity.process()
        if process is not None:
            with suppress(psutil.TimeoutExpired):
                process.wait(timeout=1)
                continue
            process.kill()
            process.wait(timeout=5)


