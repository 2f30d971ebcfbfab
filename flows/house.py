"""Open the house: settings and servers into the handles that tasks get."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from editors.errors import ConfigError
from flows.logs import begin_logs
from flows.progress import current
from flows.services import services
from flows.settings import Settings
from tasks.house import House
from tasks.notify import Bell
from tasks.privacy_key import PrivacyKey
from tasks.signing import Signer


@contextmanager
def open_house(settings: Settings) -> Iterator[House]:
    """The house of these settings, its store ready, inside the block."""
    begin_logs(settings.log_format)
    Bell(settings.notify).check()
    with services(settings, prefect=False) as held:
        yield House(root=settings.root, store=held.store(), mlflow_uri=held.mlflow_uri, user=settings.user,
                    device=settings.device, progress=current().step, privacy_key=privacy_key_of(settings),
                    signer=signer_of(settings), watch_seconds=settings.system_metrics_seconds)


def signer_of(settings: Settings) -> Signer | None:
    """Who signs releases here.

    Raises:
        ConfigError: a certificate is named without its key.
    """
    if settings.signing_key is None:
        if settings.signing_certificate or settings.signing_chain:
            raise ConfigError("SUTURE_SIGNING_CERTIFICATE is set without SUTURE_SIGNING_KEY", "set the key as well")
        return None
    places = (settings.signing_key, settings.signing_certificate, settings.signing_chain)
    return Signer(*(place.expanduser() if place else None for place in places))  # type: ignore[arg-type]


def privacy_key_of(settings: Settings) -> PrivacyKey:
    """Where this house's key is. A file that the user names is his to make."""
    named = settings.privacy_key_file
    return PrivacyKey(settings.privacy_key, named.expanduser() if named else settings.root / "privacy.key",
                      may_create=named is None)
