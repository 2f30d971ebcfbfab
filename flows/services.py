"""The servers a run needs: the team's where settings name them, embedded ones on loopback otherwise.

Embedded servers are begun first and waited for last, so that they start while the model loads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flows.settings import Settings

if TYPE_CHECKING:
    from tasks.signing import Verifier
    from tasks.store import Store
    from tasks.supervise import ServiceHandle

BUCKET = "suture"
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "OMP_WAIT_POLICY": "PASSIVE",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "NO_PROXY": "127.0.0.1,localhost",
}


@dataclass
class Services:
    """Claims on the servers of one command. `store` and `prefect` wait until theirs answers."""

    settings: Settings
    _s3: ServiceHandle | None = None
    _prefect: ServiceHandle | None = None

    def store(self) -> Store:
        """The object store, ready, its bucket there."""
        from tasks.s3_server import endpoint_of
        from tasks.store import Store
        from tasks.store_location import StoreLocation

        if self._s3 is not None:
            location = endpoint_of(self._s3.wait_ready()).location(BUCKET)
        else:
            location = StoreLocation.parse(self.settings.store or "", endpoint_url=self.settings.endpoint_url,
                                           ca_bundle=self.settings.ca_bundle, kms_key=self.settings.kms_key,
                                           lock_days=self.settings.lock_days)
        store = Store(replace(location, verifier=verifier_of(self.settings)))
        store.ensure_bucket()
        return store

    def prefect(self) -> None:
        """Point this process's Prefect client at its server. To be called before prefect is imported."""
        from tasks.prefect_server import api_url_of

        url = api_url_of(self._prefect.wait_ready()) if self._prefect is not None else self.settings.prefect_api_url
        os.environ["PREFECT_API_URL"] = str(url)
        os.environ.setdefault("PREFECT_HOME", str(self.settings.root / "prefect"))

    @property
    def mlflow_uri(self) -> str:
        """The tracking server, or SQLite in the home."""
        return self.settings.mlflow_uri or f"sqlite:///{self.settings.root / 'mlflow' / 'mlflow.db'}"


def verifier_of(settings: Settings) -> Verifier | None:
    """Whose signatures count here; None where releases need none.

    Raises:
        ConfigError: both a key and authorities are named.
    """
    from tasks.signing import Verifier

    key, authorities = settings.verify_key, settings.verify_authorities
    if key is None and authorities is None:
        return None
    return Verifier(key.expanduser() if key else None, authorities.expanduser() if authorities else None)


@contextmanager
def services(settings: Settings, *, prefect: bool) -> Iterator[Services]:
    """Begin what the command needs; give it up at the end, after which unused servers stop by themselves."""
    from tasks.prefect_server import begin_prefect
    from tasks.s3_server import begin_s3

    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    settings.root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        held = Services(settings)
        if settings.store is None:
            held._s3 = begin_s3(settings.root, linger_seconds=settings.linger_seconds)
            stack.callback(held._s3.close)
        if prefect and settings.prefect_api_url is None:
            held._prefect = begin_prefect(settings.root, linger_seconds=settings.linger_seconds)
            stack.callback(held._prefect.close)
        yield held
