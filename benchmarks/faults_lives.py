"""One life of a command: run in a fork of a warmed process, watched at every boundary, and ended there where it is told to.

A boundary is a place between two effects: before and after a stage's work, a rename, a link, a removed folder or a commit of
the registry, before every S3 request and after each that changes something. What a life did is on disk when it dies.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from editors.digest import digest_document
from editors.errors import SutureError

CHANGES = ("PUT", "POST", "DELETE")
LONGEST_SECONDS = 120.0
Act = Callable[[], Any]


@dataclass(frozen=True)
class Plan:
    """What befalls a life, and where."""

    at: int = 0
    """The boundary, counted from 1; 0: none."""
    befall: Act | None = None
    """What happens there; None: SIGKILL."""


@dataclass(frozen=True)
class Life:
    """How a command ended and what it did."""

    ended: Literal["answered", "refused", "killed", "crashed"]
    """`refused` is a typed error, `crashed` anything else that was raised, or a death that nobody planned."""
    answer: Any
    error: str
    boundaries: tuple[str, ...]
    effects: tuple[str, ...]
    """What was finished: `stage NAME ADDRESS`, `PUT KEY`, ..."""
    cpu_seconds: float


class Watch:
    """Counts the boundaries that one process passes, in whichever thread."""

    def __init__(self, plan: Plan, log: Path) -> None:
        self.plan, self.passed = plan, 0
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._alone = threading.RLock()

    def boundary(self, name: str) -> None:
        """Pass a boundary, or end there."""
        with self._alone:
            self.passed += 1
            os.write(self._log, f"b {name}\n".encode())
            if self.passed != self.plan.at:
                return
            if self.plan.befall is not None:
                self.plan.befall()
                return
            os.kill(os.getpid(), signal.SIGKILL)

    def effect(self, name: str) -> None:
        """Note something that is finished."""
        os.write(self._log, f"e {name}\n".encode())


def live(act: Act, folder: Path, plan: Plan | None = None) -> Life:
    """Run `act` in a fork of this process; its answer must be JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    log, told = folder / "log", folder / "told"
    for path in (log, told):
        path.unlink(missing_ok=True)
    before = os.times()
    child = os.fork()
    if child == 0:
        _be(act, Watch(plan or Plan(), log), told)
    status = _await(child)
    after = os.times()
    lines = log.read_text().splitlines() if log.exists() else []
    outcome = json.loads(told.read_text()) if told.exists() else {
        "ended": "killed" if plan and plan.at and os.WIFSIGNALED(status) else "crashed", "answer": None,
        "error": f"ended with status {status}"}
    return Life(**outcome, boundaries=tuple(line[2:] for line in lines if line.startswith("b ")),
                effects=tuple(line[2:] for line in lines if line.startswith("e ")),
                cpu_seconds=(after.children_user + after.children_system) - (before.children_user + before.children_system))


def together(acts: list[Act], folder: Path) -> list[Life]:
    """Run all of them at the same moment, each in a fork of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    gate = folder / "go"
    gate.unlink(missing_ok=True)
    children = []
    for number, act in enumerate(acts):
        told, log = folder / f"told-{number}", folder / f"log-{number}"
        told.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            while not gate.exists():
                time.sleep(0.002)
            _be(act, Watch(Plan(), log), told)
        children.append(child)
    time.sleep(0.05)
    gate.touch()
    for child in children:
        _await(child)
    lives = []
    for number in range(len(acts)):
        told = folder / f"told-{number}"
        outcome = json.loads(told.read_text()) if told.exists() else {"ended": "crashed", "answer": None, "error": "died"}
        lives.append(Life(**outcome, boundaries=(), effects=(), cpu_seconds=0.0))
    return lives


def _be(act: Act, watch: Watch, told: Path) -> None:
    """The child: never returns."""
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        _watch_everything(watch)
        try:
            outcome = {"ended": "answered", "answer": act(), "error": ""}
        except SutureError as error:
            outcome = {"ended": "refused", "answer": type(error).__name__, "error": str(error)}
        except BaseException as error:
            place = "".join(traceback.format_exception(error))[-1500:]
            outcome = {"ended": "crashed", "answer": type(error).__name__, "error": place}
        scratch = told.with_suffix(".part")
        scratch.write_text(json.dumps(outcome, default=str))
        _replace(scratch, told)
    finally:
        os._exit(0)


def _await(child: int) -> int:
    deadline = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


_replace = os.replace


def _watch_everything(watch: Watch) -> None:
    """Let this process pass a boundary around each of its effects."""
    for owner, name in ((os, "replace"), (os, "rename"), (os, "link"), (shutil, "rmtree")):
        setattr(owner, name, _watched(watch, name, getattr(owner, name)))
    _watch_stages(watch)
    _watch_requests(watch)
    if "sqlalchemy" in sys.modules:
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        event.listen(Engine, "commit", lambda _: watch.boundary("before a commit of the registry"))


def _watched(watch: Watch, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        where = f"{name} {Path(os.fsdecode(args[-1] if name != 'rmtree' else args[0])).name}"
        watch.boundary(f"before {where}")
        answer = function(*args, **options)
        watch.boundary(f"after {where}")
        return answer

    return call


def _watch_stages(watch: Watch) -> None:
    from tasks.stage import Workspace

    run = Workspace.run

    def watched(self: Workspace, name: str, inputs: Any, work: Callable[[Path], Any]) -> Any:
        address = digest_document({"stage": name, "inputs": dict(inputs)})[:32]

        def worked(folder: Path) -> Any:
            watch.boundary(f"before the work of {name}")
            document = work(folder)
            watch.boundary(f"after the work of {name}")
            return document

        done = run(self, name, inputs, worked)
        if not done.reused:
            watch.effect(f"stage {name} {address}")
        return done

    Workspace.run = watched  # type: ignore[method-assign]


def _watch_requests(watch: Watch) -> None:
    from botocore.httpsession import URLLib3Session

    send = URLLib3Session.send

    def watched(self: URLLib3Session, request: Any) -> Any:
        parts = urlsplit(request.url)
        query = f"?{parts.query.split('=')[0]}" if parts.query and request.method != "GET" else ""
        what = f"{request.method} {unquote(parts.path)}{query}"
        watch.boundary(f"before {what}")
        answer = send(self, request)
        if request.method in CHANGES:
            if answer.status_code < 300:
                watch.effect(what)
            watch.boundary(f"after {what}")
        return answer

    URLLib3Session.send = watched  # type: ignore[method-assign]


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Environment variables, inside the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
