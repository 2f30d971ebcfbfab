"""Keeping the store: sign releases that are older than the key, and remove what nothing names any more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from editors.errors import ConfigError
from flows.answers import find_version
from flows.house import open_house
from flows.settings import Settings
from tasks import channel as channels
from tasks import decisions
from tasks.collect import Ages
from tasks.collect import collect as collect_garbage
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


def collect(settings: Settings, older_than: float, grace: float, *, dry_run: bool) -> dict[str, Any]:
    """Put aside what nothing names, and remove what lay aside for the grace period.

    Raises:
        IntegrityError: a record cannot be read; nothing was touched.
    """
    ages = Ages(candidate_days=older_than, grace_hours=grace)
    with open_house(settings) as house:
        store = house.store
        found = collect_garbage(store, ages, dry_run=dry_run)
    rows = [{"what": what, "key": one.key, "why": one.why, "bytes": one.size_bytes, "written": one.modified.isoformat()}
            for what, group in (("put aside", found.put_aside), ("remove", found.removed)) for one in group]
    return {"store": store.location.url, "dry_run": dry_run, "rows": rows, "restored": list(found.restored),
            "bytes": sum(one.size_bytes for one in found.removed), "kept_objects": found.kept_objects,
            "next": ["suture gc"] if dry_run and rows else []}
