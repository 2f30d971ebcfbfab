"""One server for all users of a home, gone after the last of them, however that one ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from editors.errors import ServiceError
from tasks.supervise import RunningService, ServiceSpec, begin, supervised

pytestmark = pytest.mark.flow

LISTEN = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
while True:
    server.accept()[0].close()
"""
# A user process: claims the server, says so, and keeps it until it is killed or its input ends.
USER = """
import sys
from pathlib import Path
from tests.tasks.test_supervise import spec
from tasks.supervise import supervised
with supervised(spec(linger_seconds=float(sys.argv[2])), Path(sys.argv[1])) as running:
    print(running.pid, flush=True)
    sys.stdin.read()
"""
ROOT = Path(__file__).resolve().parents[2]


def listens(running: RunningService) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", running.port), timeout=1):
        return True
    return False


def spec(program: str = LISTEN, **changes: object) -> ServiceSpec:
    made = ServiceSpec(
        name="listener",
        command=lambda port, _: [sys.executable, "-c", program, str(port)],
        environment=lambda _: dict(os.environ),
        is_ready=listens,
        linger_seconds=0.0,
    )
    return replace(made, **changes)


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def start_user(home: Path, linger_seconds: float = 0.0) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", USER, str(home), str(linger_seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_the_server_stops_after_its_last_user(tmp_path: Path) -> None:
    with supervised(spec(), tmp_path) as running:
        assert running.is_alive
        with supervised(spec(), tmp_path) as shared:
            assert shared == running
        time.sleep(0.3)
        assert running.is_alive
    assert eventually(lambda: is_gone(running.pid))
    assert eventually(lambda: not (tmp_path / "listener" / "server.json").exists())


def test_a_server_whose_home_was_deleted_stops(tmp_path: Path) -> None:
    """Nobody can find it any more."""
    home = tmp_path / "home"
    with supervised(spec(linger_seconds=1.0), home) as running:
        shutil.rmtree(home)
    assert eventually(lambda: is_gone(running.pid), seconds=60)


def test_two_processes_share_one_server_and_one_killed_user_does_not_end_it(tmp_path: Path) -> None:
    first, first_pid = start_user(tmp_path)
    second, second_pid = start_user(tmp_path)
    assert first_pid == second_pid
    first.kill()
    first.wait()
    time.sleep(0.3)
    assert not is_gone(second_pid)
    second.kill()
    second.wait()
    assert eventually(lambda: is_gone(second_pid)), "a killed user left its server behind"


def test_a_killed_supervisor_takes_its_server_along_and_the_next_user_starts_another(tmp_path: Path) -> None:
    with supervised(spec(), tmp_path) as running:
        psutil.Process(running.pid).parent().kill()  # type: ignore[union-attr]
        assert eventually(lambda: is_gone(running.pid))
        assert eventually(lambda: not running.is_alive)
        with supervised(spec(), tmp_path) as another:
            assert another.pid != running.pid
            assert another.is_alive


def test_a_killed_server_is_noticed_and_started_again(tmp_path: Path) -> None:
    with supervised(spec(), tmp_path) as running:
        os.kill(running.pid, signal.SIGKILL)
        assert eventually(lambda: not running.is_alive)
        with supervised(spec(), tmp_path) as another:
            assert another.is_alive


def test_a_recorded_pid_that_belongs_to_somebody_else_is_left_alone(tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    record = {"port": 9, "details": {}, "pid": bystander.pid, "create_time": 1.0}
    (tmp_path / "listener").mkdir()
    (tmp_path / "listener" / "server.json").write_text(json.dumps(record), "utf-8")
    with supervised(spec(), tmp_path) as running:
        assert running.pid != bystander.pid
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_next_command_finds_the_lingering_server(tmp_path: Path) -> None:
    first, pid = start_user(tmp_path, linger_seconds=1.5)
    first.communicate()
    with supervised(spec(), tmp_path) as running:
        assert running.pid == pid
        time.sleep(2.0)
        assert running.is_alive
    assert not is_gone(pid)
    assert eventually(lambda: is_gone(pid))


def test_a_server_that_dies_while_starting_is_reported_at_once_with_its_log(tmp_path: Path) -> None:
    dying = spec("import sys; print('disk quota exceeded'); sys.exit(3)", start_timeout_seconds=60)
    began = time.monotonic()
    with pytest.raises(ServiceError, match="disk quota exceeded") as caught, supervised(dying, tmp_path):
        pass
    assert time.monotonic() - began < 10
    assert str(tmp_path / "listener" / "server.log") in caught.value.hint


def test_a_program_that_is_not_there_is_reported(tmp_path: Path) -> None:
    absent = spec(command=lambda *_: ["/no/such/program"])
    with pytest.raises(ServiceError, match=r"(?s)could not be launched.*/no/such/program"), supervised(absent, tmp_path):
        pass


def test_a_server_that_never_answers_is_reported_in_time(tmp_path: Path) -> None:
    silent = spec("import time; time.sleep(60)", start_timeout_seconds=0.5)
    with pytest.raises(ServiceError, match=r"was not ready in 0\.5 s"), supervised(silent, tmp_path):
        pass


def test_a_taken_port_is_exchanged_for_another(tmp_path: Path) -> None:
    unlucky_once = "import pathlib, sys\nif not pathlib.Path('tried').exists():\n    pathlib.Path('tried').touch()\n"
    program = f"{unlucky_once}    sys.exit('bind: address already in use')\n{LISTEN}"
    with supervised(spec(program), tmp_path) as running:
        assert listens(running)


def test_a_user_who_comes_while_a_stubborn_server_is_stopped_waits_and_gets_another(tmp_path: Path) -> None:
    stubborn = spec("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + LISTEN, stop_grace_seconds=1.0)
    with supervised(stubborn, tmp_path) as running:
        pass
    time.sleep(0.3)
    assert not is_gone(running.pid)
    with supervised(stubborn, tmp_path) as another:
        assert another.pid != running.pid
        assert is_gone(running.pid)


def test_users_of_one_home_must_agree_on_the_details(tmp_path: Path) -> None:
    with supervised(spec(details={"scheme": "http"}), tmp_path), pytest.raises(ServiceError, match=r"asked for.*https"):
        begin(spec(details={"scheme": "https"}), tmp_path)


def test_a_pipe_behind_the_command_closes_when_the_command_ends(tmp_path: Path) -> None:
    user, pid = start_user(tmp_path, linger_seconds=3.0)
    began = time.monotonic()
    user.communicate(timeout=10)
    assert time.monotonic() - began < 2
    assert not is_gone(pid)
    assert eventually(lambda: is_gone(pid))


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "listener").write_text("a file where the folder should be", "utf-8")
    with pytest.raises(ServiceError, match=f"cannot use {tmp_path / 'listener'}"):
        begin(spec(), tmp_path)


def test_the_environment_is_not_on_any_command_line(tmp_path: Path) -> None:
    secret = {**os.environ, "SOME_SECRET": "do-not-show"}
    with supervised(spec(environment=lambda _: secret), tmp_path) as running:
        server = psutil.Process(running.pid)
        shown = [*server.cmdline(), *server.parent().cmdline()]  # type: ignore[union-attr]
    assert not any("do-not-show" in part for part in shown)
