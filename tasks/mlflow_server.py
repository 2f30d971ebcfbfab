"""MLflow's server for a team on one machine: its tables in PostgreSQL, its files in a bucket that only it has the keys to."""

from __future__ import annotations

import os
import sys
import urllib.request
from contextlib import suppress
from functools import partial
from pathlib import Path

from tasks.s3_server import S3Endpoint
from tasks.supervise import RunningService, ServiceSpec

SERVICE_NAME = "mlflow"
APPLICATION = "mlflow.server.fastapi_app:app"
PORT = 5000
START_SECONDS = 240.0
"""The tables of a new database take their time."""
PLACES = ("_MLFLOW_SERVER_FILE_STORE", "_MLFLOW_SERVER_ARTIFACT_DESTINATION", "_MLFLOW_SERVER_ARTIFACT_ROOT")
"""Where the application finds its tables, its files, and what it calls them. `mlflow server` would set these and then start
the same application as its child, which a kill would leave behind."""
# Loopback is never behind a proxy, whatever HTTP_PROXY says.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def mlflow_spec(database: str, files: S3Endpoint, bucket: str, linger_seconds: float = 0.0) -> ServiceSpec:
    """How to start the server.

    Args:
        database: SQLAlchemy's address of its database.
        files: The store of its files.
        bucket: The bucket there.
        linger_seconds: How long it outlives its last user.
    """
    return ServiceSpec(
        name=SERVICE_NAME,
        command=_command,
        environment=partial(_environment, database, files, bucket),
        is_ready=_is_ready,
        preferred_port=PORT,
        start_timeout_seconds=START_SECONDS,
        linger_seconds=linger_seconds,
    )


def _command(port: int, _: Path) -> list[str]:
    flags = f"--host 127.0.0.1 --port {port} --log-level warning --timeout-graceful-shutdown 1"
    return [sys.executable, "-m", "uvicorn", APPLICATION, *flags.split()]


def _environment(database: str, files: S3Endpoint, bucket: str, _: Path) -> dict[str, str]:
    """The caller's environment without its settings for clients."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "_MLFLOW_", "AWS_"))}
    return {
        **kept, **dict(zip(PLACES, (database, f"s3://{bucket}", "mlflow-artifacts:/"), strict=True)),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_S3_ENDPOINT_URL": files.endpoint_url,
        "AWS_ACCESS_KEY_ID": files.access_key,
        "AWS_SECRET_ACCESS_KEY": files.secret_key.get_secret_value(),
        "AWS_DEFAULT_REGION": files.region,
        **({"AWS_CA_BUNDLE": str(files.ca_bundle)} if files.ca_bundle else {}),
    }


def _is_ready(running: RunningService) -> bool:
    """Whether it answers from its tables, which it makes when it is asked first: once, so that no two makings meet."""
    return _answers(running, "health", 2) and _answers(running, "api/2.0/mlflow/experiments/search?max_results=1",
                                                       START_SECONDS)


def _answers(running: RunningService, path: str, patience_seconds: float) -> bool:
    with suppress(OSError), DIRECT.open(f"http://127.0.0.1:{running.port}/{path}", timeout=patience_seconds) as answer:
        return bool(answer.status == 200)
    return False
