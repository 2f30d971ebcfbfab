"""The supervisor's side of `tasks.supervise`: a small detached process that is the server's parent until nobody needs it."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from editors.errors import ServiceError

WAIT_SECONDS = 30.0
POLL_SECONDS = 0.1
PR_SET_PDEATHSIG = 1


def lock_file(path: Path, mode: int, wait_seconds: float = WAIT_SECONDS) -> int:
    """Open and lock a file; the kernel frees the lock however the process ends.

    Raises:
        ServiceError: another process holds it all the time.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + wait_seconds
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
            return descriptor
        if time.monotonic() >= deadline:
            os.close(descriptor)
            raise ServiceError(f"another process has held {path} for {wait_seconds:g} s", f"who: fuser -v {path}")
        time.sleep(POLL_SECONDS)


def main() -> None:
    """The supervisor's side: run the server described on standard input until nobody uses it, or it ends."""
    launch = json.load(sys.stdin)
    directory = Path(launch["directory"])
    lock_file(directory / "alive.lock", fcntl.LOCK_EX)
    # The starter waits for this process only: the supervisor itself is nobody's child, and leaves no zombie.
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # No thread runs yet, which is what makes preexec_fn safe.
    server = subprocess.Popen(  # noqa: S603 (the command comes from our own code)
        launch["command"],
        stdin=subprocess.DEVNULL,
        cwd=directory,
        env=launch["environment"],
        preexec_fn=_die_with_supervisor if sys.platform == "linux" else None,  # noqa: PLW1509
    )
    try:
        identity = {"pid": server.pid, "create_time": psutil.Process(server.pid).create_time()}
        partial = directory / "server.json.partial"
        partial.write_text(json.dumps({**launch["record"], **identity}), "utf-8")
        partial.replace(directory / "server.json")
        threading.Thread(target=_stop_when_unused, args=(server, launch), daemon=True).start()
        server.wait()
    finally:
        _stop(server, launch["grace"])


def _die_with_supervisor() -> None:
    supervisor = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(1)


def _stop_when_unused(server: subprocess.Popen[bytes], launch: Mapping[str, Any]) -> None:
    directory = Path(launch["directory"])
    users = directory / "users.lock"
    descriptor = os.open(users, os.O_RDWR)
    # a server whose home was deleted can be found by nobody
    with suppress(FileNotFoundError):
        while True:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.utime(users)
            last_use = users.stat().st_mtime_ns
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            time.sleep(launch["linger"])
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if users.stat().st_mtime_ns == last_use:
                    break
    # The exclusive lock is kept to the end of this process: a new user waits for it, then starts another server.
    (directory / "server.json").unlink(missing_ok=True)
    _stop(server, launch["grace"])


def _stop(server: subprocess.Popen[bytes], grace: float) -> None:
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(grace)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
