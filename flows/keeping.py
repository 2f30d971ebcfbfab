"""Keeping the store: sign releases that are older than the key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from editors.errors import ConfigError
from flows.answers import find_version
from flows.house import open_house
from flows.settings import Settings
from tasks import channel as channels
from tasks import decisions
from tasks.publish import check_named
from tasks.signing import sign_release
from tasks.store import Store


def sign(settings: Settings, version: str) -> dict[str, Any]:
    """Sign a published release, and the releases it stands on, with this place's key.

    Raises:
        ConfigError: no key is configured, or it cannot be used.
        NotFound: the version is not published.
        IntegrityError: the manifest is not what its approvals were about.
    """
    with open_house(settings) as house:
        if house.signer is None:
            raise ConfigError("no signing key is configured", "export SUTURE_SIGNING_KEY=PATH")
        # what is to be signed is not signed yet
        store = Store(replace(house.store.location, verifier=None))
        model, full = find_version(store, version)
        signed: list[str] = []
        one: str | None = full
        while one is not None:
            manifest, _ = channels.read_release(store, model, one)
            if manifest.stack:
                check_named(store, manifest, decisions.standing(store, channels.read_candidate(store, model, one)))
            sign_release(store, model, one, house.signer)
            signed.append(one)
            one = manifest.parent
    return {"version": full, "model": model, "signed": signed, "signer": house.signer.name}
