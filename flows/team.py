"""Team: everything that a team shares, on one machine and by one command, until it is stopped.

Prefect's and MLflow's servers on PostgreSQL, an S3 store with TLS, and this process itself as the worker. Each server runs
under a supervisor of its own, which stops it when this process has gone, however it went. The same settings lead to it as to
a team's servers elsewhere, so nothing that is tried here is another thing there.
"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from editors.errors import ConfigError
from flows.serve import serve
from flows.services import BUCKET, QUIET
from flows.settings import Settings, read_settings

logger = logging.getLogger("suture")
FOLDER = "team"
FILES_BUCKET = "mlflow"
S3_PORT = 8333
ELSEWHERE = ("store", "mlflow_uri", "prefect_api_url")
"""Settings that name servers; here they are what this command makes."""


def team(settings: Settings, inbox: str | None, every_seconds: float, channels: list[str]) -> None:
    """Start the servers and work as their worker until stopped; `flows.serve.serve` says what it serves.

    Raises:
        ConfigError: the settings name servers already.
        ServiceError: a program is missing, or a server does not start.
    """
    named = [name for name in ELSEWHERE if getattr(settings, name) is not None]
    if named:
        raise ConfigError(f"the settings name a team's servers already: {', '.join(named)}",
                          "work with them: suture serve; or unset these to start some here")
    with team_servers(settings.root / FOLDER) as environment:
        os.environ.update(environment)
        place = write_environment(settings.root / FOLDER / "environment", environment)
        for name, url in (("Prefect", environment["PREFECT_API_URL"].removesuffix("/api")),
                          ("MLflow", environment["MLFLOW_TRACKING_URI"]), ("S3", environment["SUTURE_ENDPOINT_URL"])):
            logger.info("%-8s %s", name, url)
        logger.info("to work with them: set -a; . %s; set +a", shlex.quote(str(place)))
        serve(read_settings(), inbox, every_seconds, channels)


@contextmanager
def team_servers(home: Path) -> Iterator[dict[str, str]]:
    """The servers, ready, for the length of a block; yields the environment that leads to them, keys among it.

    Raises:
        ServiceError: a program is missing, or a server does not start.
    """
    from tasks.authority import certified
    from tasks.mlflow_server import mlflow_spec
    from tasks.postgres import database_url, postgres_spec
    from tasks.prefect_server import api_url_of, team_prefect_spec
    from tasks.s3_server import endpoint_of, s3_spec
    from tasks.store import Store
    from tasks.supervise import ServiceHandle, ServiceSpec, begin

    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with ExitStack() as stack:

        def started(spec: ServiceSpec) -> ServiceHandle:
            handle = begin(spec, home)
            stack.callback(handle.close)
            return handle

        s3 = started(s3_spec(certified(home / "tls"), linger_seconds=0.0, preferred_port=S3_PORT))
        database = started(postgres_spec(("prefect", "mlflow"))).wait_ready()
        prefect = started(team_prefect_spec(database_url(database, "prefect", "asyncpg")))
        endpoint = endpoint_of(s3.running)
        mlflow = started(mlflow_spec(database_url(database, "mlflow", "psycopg2"), endpoint, FILES_BUCKET))
        s3.wait_ready()
        for bucket in (BUCKET, FILES_BUCKET):
            Store(endpoint.location(bucket)).ensure_bucket()
        yield {
            "PREFECT_API_URL": api_url_of(prefect.wait_ready()),
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow.wait_ready().port}",
            "SUTURE_STORE": f"s3://{BUCKET}/team",
            "SUTURE_ENDPOINT_URL": endpoint.endpoint_url,
            "SUTURE_CA_BUNDLE": str(endpoint.ca_bundle),
            "AWS_ACCESS_KEY_ID": endpoint.access_key,
            "AWS_SECRET_ACCESS_KEY": endpoint.secret_key.get_secret_value(),
            "AWS_DEFAULT_REGION": endpoint.region,
        }


def write_environment(path: Path, environment: Mapping[str, str]) -> Path:
    """Write what a shell reads with `.`, closed to others: the store's keys are in it."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(f"{name}={shlex.quote(value)}\n" for name, value in environment.items())
    return partial.replace(path)
