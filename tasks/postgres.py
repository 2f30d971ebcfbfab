"""A PostgreSQL server of one Suture home, on loopback, for the servers that a team shares: Prefect's and MLflow's.

The program is the machine's own (Debian: `apt-get install postgresql`). It refuses to run as root, and root's folders are
closed to other accounts; so root starts it as `postgres` with the one right that lets it through those folders.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from functools import partial
from pathlib import Path

from editors.errors import ServiceError
from tasks.supervise import RunningService, ServiceSpec

SERVICE_NAME = "postgres"
ACCOUNT = "postgres"
"""Whom root runs it as; Debian's package makes it."""
ROLE = "suture"
DEBIAN = Path("/usr/lib/postgresql")
PORT = 15432
AS_ACCOUNT = ("setpriv", "--reuid", ACCOUNT, "--regid", ACCOUNT, "--clear-groups",
              "--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")


def postgres_spec(databases: tuple[str, ...], linger_seconds: float = 0.0) -> ServiceSpec:
    """How to start the server, with these databases in it.

    Raises:
        ServiceError: PostgreSQL is not installed.
    """
    programs = find_programs()
    return ServiceSpec(
        name=SERVICE_NAME,
        command=partial(_command, programs, databases),
        environment=_environment,
        is_ready=partial(_is_ready, programs),
        preferred_port=PORT,
        # one that runs already has its own: another command's would be missing from it
        details={"databases": " ".join(databases)},
        # it waits for its clients to leave; killed, it repairs itself at the next start
        stop_grace_seconds=10.0,
        linger_seconds=linger_seconds,
    )


def database_url(running: RunningService, database: str, driver: str) -> str:
    """SQLAlchemy's address of a database, its password in it."""
    password = (running.directory / "password").read_text("utf-8")
    return f"postgresql+{driver}://{ROLE}:{password}@127.0.0.1:{running.port}/{database}"


def find_programs(debian: Path = DEBIAN) -> Path:
    """The folder with `postgres` and `initdb`: where Debian puts the newest, or what PATH names.

    Raises:
        ServiceError: there is none.
    """
    shipped = [folder / "bin" for folder in debian.glob("*") if folder.name.isdecimal()]
    named = [Path(found).parent for found in [shutil.which("initdb")] if found]
    for folder in [*sorted(shipped, key=lambda one: int(one.parent.name), reverse=True), *named]:
        if os.access(folder / "initdb", os.X_OK):
            return folder
    raise ServiceError("PostgreSQL is not installed: no program initdb", "apt-get install postgresql")


def _command(programs: Path, databases: tuple[str, ...], port: int, directory: Path) -> list[str]:
    data = directory / "data"
    if not (data / "PG_VERSION").exists():
        _make_cluster(programs, directory)
    for name in databases:
        if not (directory / f"{name}.made").exists():
            alone = [str(programs / "postgres"), "--single", "-D", str(data), "postgres"]
            _run(alone, directory, f"CREATE DATABASE {name};\n")
            (directory / f"{name}.made").touch()
    return [*_prefix(), str(programs / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(port),
            "-c", "unix_socket_directories="]


def _make_cluster(programs: Path, directory: Path) -> None:
    """An empty cluster that asks everybody for the password, which was made here and is nowhere else."""
    data, password = directory / "data", directory / "password"
    shutil.rmtree(data, ignore_errors=True)
    for left in (password, *directory.glob("*.made")):
        left.unlink(missing_ok=True)
    with os.fdopen(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(24))
    data.mkdir(mode=0o700)
    if os.geteuid() == 0:
        shutil.chown(data, ACCOUNT, ACCOUNT)
    # half a cluster must not be taken for one: PG_VERSION is written early
    try:
        _run([str(programs / "initdb"), "-D", str(data), "-U", ROLE, "--auth=scram-sha-256", f"--pwfile={password}",
              "--encoding=UTF8", "--no-locale", "--no-instructions"], directory)
    except BaseException:
        shutil.rmtree(data, ignore_errors=True)
        raise


def _run(command: list[str], directory: Path, sent: str = "") -> None:
    done = subprocess.run([*_prefix(), *command], input=sent, capture_output=True, text=True, cwd=directory,  # noqa: S603
                          env=_environment(directory), check=False)
    # a kill between making a database and noting it leaves it there
    faults = [line for line in done.stderr.splitlines() if "ERROR" in line and "already exists" not in line]
    if done.returncode != 0 or faults:
        raise ServiceError(f"{Path(command[0]).name} failed in {directory}: {done.stderr.strip()[-500:]}",
                           f"mend it, or begin anew without what these databases hold: rm -r {directory}")


def _prefix() -> tuple[str, ...]:
    return AS_ACCOUNT if os.geteuid() == 0 else ()


def _environment(_: Path) -> dict[str, str]:
    """The caller's environment without settings for other servers of PostgreSQL."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _is_ready(programs: Path, running: RunningService) -> bool:
    asked = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(running.port)]
    return subprocess.run(asked, env=_environment(running.directory), check=False).returncode == 0  # noqa: S603
