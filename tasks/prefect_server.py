"""The embedded Prefect server: one for each Suture home, on loopback, with SQLite, shared by all commands there.

Without a server every Prefect process starts one of its own (10 to 20 s) and leaves it behind when it is killed. Here
the first command starts one, the next commands find it, and it stops by itself. Measured on 2 cores: a new home is
ready in 5 s instead of 16 to 27 s, because the database is copied from a migrated, empty template. Of the 5 s, 4.5 s
are Prefect's own imports, so begin early and wait late. Scheduler, triggers, user interface and telemetry are off.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path

from tasks.supervise import RunningService, ServiceHandle, ServiceSpec, begin

SERVICE_NAME = "prefect"
STANDING_NAME = "prefect-standing"
TEAM_NAME = "prefect-team"
TEAM_PORT = 4200
APPLICATION = "prefect.server.api.server:create_app"
DATABASE = "prefect.db"
# Scheduled deployments need a team's server; the embedded one serves commands that run now.
UNUSED_SERVICES = (
    "CANCELLATION_CLEANUP",
    "CLEANUP_RECONCILER",
    "FOREMAN",
    "LATE_RUNS",
    "PAUSE_EXPIRATIONS",
    "REPOSSESSOR",
    "SCHEDULER",
    "TRIGGERS",
)
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
}
# Loopback is never behind a proxy, whatever HTTP_PROXY says.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def begin_prefect(home: Path, templates: Path | None = None, linger_seconds: float = 30.0) -> ServiceHandle:
    """Claim the home's Prefect server and start it when none runs; `handle.wait_ready()` when a flow is about to run.

    Args:
        home: The Suture home; the server's files are in its folder `prefect`.
        templates: Folder of migrated empty databases, shared among homes; None: `~/.cache/suture`.
        linger_seconds: Time the server waits for a next command.

    Raises:
        ServiceError: When it cannot be launched.
    """
    template = (templates or Path.home() / ".cache" / "suture") / f"prefect-{version('prefect')}.db"
    return begin(prefect_spec(template, linger_seconds), home)


@contextmanager
def embedded_prefect(home: Path, templates: Path | None = None, linger_seconds: float = 30.0) -> Iterator[dict[str, str]]:
    """The home's Prefect server, ready, for the length of a block; yields `client_environment`.

    Raises:
        ServiceError: When it cannot be launched, dies while starting, or is not ready in time.
    """
    with begin_prefect(home, templates, linger_seconds) as running:
        yield client_environment(running)


def client_environment(running: RunningService) -> dict[str, str]:
    """What a process must have in its environment before it imports prefect."""
    return {**QUIET, "PREFECT_API_URL": api_url_of(running), "PREFECT_HOME": str(running.directory)}


def api_url_of(running: RunningService) -> str:
    """What `PREFECT_API_URL` must be for this server."""
    return f"http://127.0.0.1:{running.port}/api"


def warm_template(templates: Path | None = None) -> None:
    """Migrate an empty database ahead of time, so that no first command waits for it (16 to 27 s).

    Raises:
        ServiceError: When Prefect's server does not start.
    """
    with tempfile.TemporaryDirectory() as home, embedded_prefect(Path(home), templates, linger_seconds=0.0):
        pass


def begin_standing_prefect(home: Path, templates: Path | None = None) -> ServiceHandle:
    """A second server of the home, with a database of its own, for `suture serve`: it schedules, and answers events.

    The first one stays what it is: quick to start, and gone when no command needs it.

    Raises:
        ServiceError: When it cannot be launched.
    """
    template = (templates or Path.home() / ".cache" / "suture") / f"prefect-{version('prefect')}.db"
    return begin(prefect_spec(template, 0.0, STANDING_NAME, ()), home)


def prefect_spec(template: Path, linger_seconds: float = 30.0, name: str = SERVICE_NAME,
                 unused: tuple[str, ...] = UNUSED_SERVICES) -> ServiceSpec:
    """How to start the server on a copy of `template`, which is written by the first server that is ready."""

    def is_ready(running: RunningService) -> bool:
        ready = _is_healthy(running.port)
        if ready and not template.exists():
            _keep_template(running.directory / DATABASE, template)
        return ready

    def command(port: int, directory: Path) -> list[str]:
        _use_template(template, directory / DATABASE)
        return _command(port, directory)

    return ServiceSpec(name, command, partial(_environment, unused), is_ready, linger_seconds=linger_seconds)


def team_prefect_spec(database: str, linger_seconds: float = 0.0) -> ServiceSpec:
    """How to start a server for a team: its tables in PostgreSQL, everything switched on, with its pages.

    Args:
        database: SQLAlchemy's address of its database, by asyncpg.
        linger_seconds: How long it outlives its last user.
    """

    def environment(directory: Path) -> dict[str, str]:
        pages = {
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
            "PREFECT_SERVER_UI_ENABLED": "true",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            # relative: the pages then find their server under whatever name a browser reached them
            "PREFECT_SERVER_UI_API_URL": "/api",
        }
        return {**_environment((), directory), **pages}

    return ServiceSpec(TEAM_NAME, _command, environment, lambda running: _is_healthy(running.port), preferred_port=TEAM_PORT,
                       start_timeout_seconds=240.0, linger_seconds=linger_seconds)


def _command(port: int, _: Path) -> list[str]:
    flags = f"--host 127.0.0.1 --port {port} --lifespan on --log-level warning --timeout-graceful-shutdown 1"
    return [sys.executable, "-m", "uvicorn", "--factory", APPLICATION, *flags.split()]


def _environment(unused: tuple[str, ...], directory: Path) -> dict[str, str]:
    """The caller's environment without its Prefect settings, which are meant for clients or for other servers."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    switched_off = {f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in unused}
    server = {
        "PREFECT_HOME": str(directory),
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    }
    return {**kept, **QUIET, **switched_off, **server}


def _is_healthy(port: int) -> bool:
    with suppress(OSError), DIRECT.open(f"http://127.0.0.1:{port}/api/health", timeout=2) as answer:
        return bool(answer.status == 200)
    return False


def _use_template(template: Path, database: Path) -> None:
    if template.is_file() and not database.exists():
        copied = database.with_suffix(".partial")
        shutil.copyfile(template, copied)
        copied.replace(database)


def _keep_template(database: Path, template: Path) -> None:
    """Keep a copy of a migrated database in which nothing has run yet; a cache that cannot be written is no fault."""
    kept = template.with_name(f"{template.name}.{uuid.uuid4().hex}.partial")
    with suppress(OSError, sqlite3.Error):
        template.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(kept)) as target:
            with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as source:
                source.backup(target)
            # One file, to be copied as one: no write-ahead log beside it.
            target.execute("PRAGMA journal_mode = DELETE")
            used = target.execute("SELECT EXISTS (SELECT 1 FROM flow) OR EXISTS (SELECT 1 FROM flow_run)").fetchone()
        if used == (0,):
            kept.replace(template)
    kept.unlink(missing_ok=True)
