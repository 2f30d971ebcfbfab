"""Bases that were published before: a release in a store, or a version in the registry."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from editors.errors import BaseNotFound
from editors.loading import Checkpoint
from editors.patch import load_patch
from tasks import channel as channels
from tasks.base import local_base
from tasks.house import House, model_folder, store_at
from tasks.pull import pull
from tasks.register import resolve_model_uri

RELEASE = re.compile(r"^(?P<store>s3://.+?)/models/(?P<model>[^/]+)/(?P<kind>channels|releases)/(?P<name>[^/]+?)(\.json)?$")


def released_base(url: str, house: House) -> Checkpoint:
    """The model a release's or a channel's address names, pulled and verified, kept under its checkpoint digest.

    Raises:
        BaseNotFound: it is no such address, or nothing is there.
        IntegrityError: what is there is damaged.
    """
    parts = RELEASE.match(url)
    if parts is None:
        raise BaseNotFound(f"{url} names no release",
                           "write s3://bucket/prefix/models/MODEL/channels/CHANNEL or .../releases/VERSION")
    store = store_at(parts["store"], house)
    if parts["kind"] == "channels":
        state = channels.read(store, parts["model"], parts["name"])
        if state is None:
            raise BaseNotFound(f"{url}: no such channel", "see what is there: suture history CHANNEL")
        contents = state.manifest
    else:
        contents = channels.read_release(store, parts["model"], parts["name"])[0]
    folder = house.cache / "bases" / contents.checkpoint[:32]
    if not Checkpoint(folder).has_digest(contents.checkpoint):
        shutil.rmtree(folder, ignore_errors=True)
        pull(store, contents, folder, progress=house.progress)
    return Checkpoint(folder)


def registered_base(reference: str, house: House) -> Checkpoint:
    """The model that `models:/name@alias` names: its base under its patches.

    Raises:
        BaseNotFound: there is no such version, or it was not made here.
        IntegrityError: its patches were made for other weights.
    """
    from editors.bake import bake

    resolved = resolve_model_uri(house.mlflow_uri, reference, house.cache / "registry" / re.sub(r"\W+", "-", reference))
    found = Checkpoint(resolved.base_folder)
    if not found.has_digest(resolved.base_digest):
        found = local_base(resolved.base, house.cache)
    patches = [load_patch(folder) for folder in resolved.patches]
    target: Path = model_folder(house, resolved.base_digest, tuple(patch.digest for patch in patches))
    return bake(found, patches, target)
