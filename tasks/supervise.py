"""Keep one embedded server for one Suture home, shared by every Suture process there, and stopped by itself.

Two sides meet over files in `HOME/<service>/`. A *user* process holds a shared lock on `users.lock` while it needs the
server; the kernel frees it however the process ends. The *supervisor*, a small detached process and the server's
parent, waits for the exclusive lock (no users left), lingers for a next command, stops the server and leaves.

    users.lock    shared by users, exclusive while the server stops; its time stamp is the last coming or going
    start.lock    at most one process decides whether to start a server
    server.json   the running server: port, pid and create time, since a pid alone may belong to somebody else by now
    alive.lock    held by the supervisor for as long as it lives: no clock and no pid can deceive about that
    server.log    what the server prints; the run before is kept as server.log.1
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from editors.errors import ServiceError
from tasks.supervisor import POLL_SECONDS, lock_file

START_ATTEMPTS = 3
# Below Linux's ephemeral range, so that no outgoing connection takes a port between our look and the server's bind.
PORTS = range(20_000, 32_000)


@dataclass(frozen=True)
class RunningService:
    """One server as `server.json` records it."""

    directory: Path
    port: int
    pid: int
    create_time: float
    details: Mapping[str, str]

    @property
    def is_alive(self) -> bool:
        """Whether this server still runs under its supervisor, which leaves as soon as the server ends."""
        return _is_held(self.directory / "alive.lock") and _read_record(self.directory) == self


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
    preferred_port: int | None = None
    """Taken as the first of them where all are free, so that people may keep the address; None: any."""
    details: Mapping[str, str] = field(default_factory=dict)
    """Facts every user of this home must agree on, such as the scheme; recorded with the server, so no secrets."""
    start_timeout_seconds: float = 90.0
    """Time to become ready; a server that dies is noticed at once."""
    stop_grace_seconds: float = 2.0
    """Time between SIGTERM and SIGKILL."""
    linger_seconds: float = 30.0
    """Time the server stays up for a next command after its last user has gone."""


class ServiceHandle:
    """A claim on a running or starting server, which lives at least until `close`. Also a context manager."""

    def __init__(self, spec: ServiceSpec, home: Path) -> None:
        self.spec = spec
        self.directory = home.resolve() / spec.name
        self._claim: int | None = None
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._claim = lock_file(self.directory / "users.lock", fcntl.LOCK_SH)
            os.utime(self.directory / "users.lock")
            self.running = self._find_or_start()
        except OSError as error:
            self.close()
            raise ServiceError(f"the {spec.name} server cannot use {self.directory}: {error}") from error
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
                    raise _failure(self.directory, "died while starting")
                self.running = self._find_or_start()
            elif time.monotonic() > deadline:
                raise _failure(self.directory, f"was not ready in {self.spec.start_timeout_seconds:g} s")
            time.sleep(POLL_SECONDS)
        return self.running

    def close(self) -> None:
        """Give up the claim; the last one to do so lets the server stop. Safe to call twice."""
        if self._claim is not None:
            os.utime(self._claim)
            os.close(self._claim)
            self._claim = None

    def __enter__(self) -> RunningService:
        try:
            return self.wait_ready()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def _find_or_start(self) -> RunningService:
        start_lock = lock_file(self.directory / "start.lock", fcntl.LOCK_EX)
        try:
            running = _read_record(self.directory)
            if running is None or not running.is_alive:
                if running is not None:
                    _kill_remains(running)
                running = _spawn_supervisor(self.spec, self.directory)
        finally:
            os.close(start_lock)
        if running.details != self.spec.details:
            raise ServiceError(
                f"the server in {self.directory} runs with {running.details}, asked for {self.spec.details}",
                hint="wait until the other command has ended, or use another home",
            )
        return running


def begin(spec: ServiceSpec, home: Path) -> ServiceHandle:
    """Claim the server of one home, starting it when none runs; does not wait until it is ready.

    Raises:
        ServiceError: When none can be launched, or one with other `details` runs there.
    """
    return ServiceHandle(spec, home)


supervised = begin
"""The same, read as a block: `with supervised(spec, home) as running:` is ready inside, and given up after."""


def _is_held(path: Path) -> bool:
    with suppress(ServiceError):
        os.close(lock_file(path, fcntl.LOCK_SH, wait_seconds=0))
        return False
    return True


def _read_record(directory: Path) -> RunningService | None:
    with suppress(FileNotFoundError, ValueError, TypeError):
        return RunningService(directory, **json.loads((directory / "server.json").read_text("utf-8")))
    return None


def _kill_remains(running: RunningService) -> None:
    """End a server that outlived its supervisor: two must never share one data folder."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(running.pid)
        if abs(process.create_time() - running.create_time) < 0.01:
            process.kill()
            psutil.wait_procs([process], timeout=1)


def _spawn_supervisor(spec: ServiceSpec, directory: Path) -> RunningService:
    (directory / "server.json").unlink(missing_ok=True)
    log_path = directory / "server.log"
    if log_path.exists():
        log_path.replace(directory / "server.log.1")
    port = _free_ports(spec.port_count, spec.preferred_port)
    launch = {
        "directory": str(directory),
        "command": [str(part) for part in spec.command(port, directory)],
        "environment": dict(spec.environment(directory)),
        "record": {"port": port, "details": dict(spec.details)},
        "grace": spec.stop_grace_seconds,
        "linger": spec.linger_seconds,
    }
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    # Through a pipe: an environment may hold secrets, and any user of the machine can read a command line.
    with log_path.open("ab") as log:
        subprocess.run(
            [sys.executable, "-m", "tasks.supervisor"],
            input=json.dumps(launch).encode("utf-8"),
            stdout=log,
            stderr=log,
            cwd=directory,
            env=environment,
            start_new_session=True,
            check=False,
        )
    while (running := _read_record(directory)) is None:
        if not _is_held(directory / "alive.lock"):
            raise _failure(directory, "could not be launched")
        time.sleep(POLL_SECONDS)
    return running


def _free_ports(count: int, preferred: int | None = None) -> int:
    for attempt in range(200):
        first = preferred if preferred and not attempt else random.SystemRandom().randrange(PORTS.start, PORTS.stop - count)
        with suppress(OSError):
            for port in range(first, first + count):
                with socket.socket() as probe:
                    # as the servers do: the ends of old connections keep nobody out
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
            return first
    raise ServiceError(f"no {count} free consecutive ports from {PORTS.start} to {PORTS.stop} on 127.0.0.1")


def _log_tail(directory: Path, lines: int = 15) -> str:
    with suppress(OSError):
        return "\n".join((directory / "server.log").read_text("utf-8", errors="replace").splitlines()[-lines:])
    return ""


def _failure(directory: Path, event: str) -> ServiceError:
    return ServiceError(
        f"the {directory.name} server {event}; its log ends with:\n{_log_tail(directory)}",
        hint=f"read {directory / 'server.log'}, then run the same command again",
    )
