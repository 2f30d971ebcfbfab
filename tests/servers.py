"""A server that a test starts, waits for and asks."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(command: Sequence[str], environment: Mapping[str, str], folder: Path, ready: str,
            seconds: float = 120) -> Iterator[Path]:
    """The server, until the block ends; it is ready when the address `ready` answers. Yields its log."""
    log = folder / "server.log"
    with log.open("w") as said:
        # a group of its own, so that what the server started ends with it
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=said, stderr=said, start_new_session=True)
    try:
        deadline = time.monotonic() + seconds
        while True:
            with suppress(OSError), urllib.request.urlopen(ready, timeout=5):
                break
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)
        yield log
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ask(address: str, document: Any) -> Any:
    """What is answered to a JSON document that is posted."""
    request = urllib.request.Request(address, json.dumps(document).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
