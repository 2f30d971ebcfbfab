"""Sheet -> Order: read, parse, resolve the base, find the parent the channel stands at, and ask whether it is sane."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from editors.bake import bake, is_whole
from editors.contract import EditBatch, EditRequest
from editors.errors import ConfigError, IntegrityError
from editors.loading import Checkpoint
from editors.patch import load_patch
from editors.sheet import Sheet, parse_sheet
from tasks import channel
from tasks.base import local_base
from tasks.house import House, model_folder, store_at
from tasks.published_base import registered_base, released_base
from tasks.records import Order
from tasks.sheets import is_stored, local_sheet

if TYPE_CHECKING:
    from tasks.manifest import Contents, StackEntry


def read_sheet(address: str, house: House) -> Sheet:
    """The sheet at a path or `s3://bucket/key`.

    Raises:
        SheetError: it cannot be read, or has problems; all are listed.
    """
    if is_stored(address):
        folder, _, name = address.rpartition("/")
        return parse_sheet(store_at(folder, house).get_bytes(name)[0], name)
    return local_sheet(address)


def intake(address: str, house: House) -> Order:
    """The order that a sheet places, on top of what its channel serves now.

    Raises:
        SheetError: the sheet is wrong, or a request of it is not sane.
        BaseNotFound: the base leads nowhere.
        ConfigError: the sheet's base is not the one its channel was built on.
    """
    sheet = read_sheet(address, house)
    if sheet.is_private:
        sheet = sheet.sealed(house.privacy_key.read())
    base = find_base(sheet.base, house)
    state = channel.read(house.store, sheet.model_name, sheet.channel)
    if state is not None and state.manifest.base.digest != base.digest:
        raise ConfigError(
            f"channel {sheet.channel} of {sheet.model_name} was built on the base {state.manifest.base.name} "
            f"({state.manifest.base.digest[:12]}), the sheet's base {sheet.base} is {base.digest[:12]}",
            "name the same base, or another `channel`")
    folders = fetch_stack(state.manifest, house) if state else ()
    parent = materialise(base, folders, house, state.manifest.checkpoint if state else base.digest)
    batch = EditBatch(purpose=sheet.purpose, base_digest=base.digest, parent_digest=parent.digest, requests=sheet.requests)
    return Order(
        sheet=address, sheet_digest=sheet.digest, model=sheet.model_name, channel=sheet.channel, base=sheet.base,
        base_folder=base.folder, base_digest=base.digest,
        parent_version=state.manifest.version if state and state.stack else None,
        parent_folder=parent.folder, parent_digest=parent.digest, stack=folders,
        patch_digests=state.manifest.patch_digests if state else (),
        history=accepted(channel.read_batches(house.store, state.manifest)) if state else (),
        batch=batch, method=sheet.method.name, options=sheet.method.options, layers=sheet.layers, position=sheet.position,
        trace=sheet.locate is not False, policy=sheet.policy, requester=house.user, seeks_layers=sheet.locate == "auto")


def served_version(order: Order, house: House) -> str | None:
    """The version on the channel's present line that carried out these very requests; None when none did."""
    state = channel.read(house.store, order.model, order.channel)
    contents: Contents | None = state.manifest if state else None
    asked = tuple(request.at_rest() for request in order.batch.requests)
    if contents is None or all(batch.requests != asked for batch in channel.read_batches(house.store, contents)):
        # an edit that was taken out again is made anew
        return None
    while contents is not None and contents.stack:
        if channel.read_batches(house.store, contents)[-1].requests == asked:
            return contents.version
        contents = channel.read_version(house.store, order.model, contents.parent) if contents.parent else None
    return None


def find_base(reference: str, house: House) -> Checkpoint:
    """The base in one shard per layer, so that releases of it share every untouched shard. A copy that rotted is made anew.

    Raises:
        BaseNotFound: it leads nowhere.
        IntegrityError: it is damaged where the reference leads.
    """
    if reference.startswith("s3://"):
        found = released_base(reference, house)
    elif reference.startswith("models:/"):
        found = registered_base(reference, house)
    else:
        found = local_base(reference, house.cache)
    target = house.root / "work" / "models" / found.digest[:32]
    if not is_whole(Checkpoint(target), found.digest):
        shutil.rmtree(target, ignore_errors=True)
    return bake(found, (), target)


def materialise(base: Checkpoint, folders: tuple[Path, ...], house: House, expected: str) -> Checkpoint:
    """The base under a stack of patches, as a folder whose checkpoint digest is `expected`.

    Raises:
        IntegrityError: the weights come out otherwise than when they were published.
    """
    if not folders:
        return base
    patches = [load_patch(folder) for folder in folders]
    target = model_folder(house, base.digest, tuple(patch.digest for patch in patches))
    if is_whole(Checkpoint(target), expected):
        return Checkpoint(target)
    shutil.rmtree(target, ignore_errors=True)
    made = bake(base, patches, target)
    if made.digest != expected:
        raise IntegrityError(f"base {base.digest[:12]} under {len(patches)} patches gives {made.digest}, expected {expected}",
                             "fetch the base again; its tensors are not the ones the patches were published with")
    return made


def fetch_stack(contents: Contents, house: House) -> tuple[Path, ...]:
    """Folders of a version's patches, in order, fetched from the store where they are not here yet."""
    return tuple(_fetch_patch(entry, house) for entry in contents.stack)


def accepted(batches: tuple[EditBatch, ...]) -> tuple[EditRequest, ...]:
    """Every accepted request that no later one replaced (the same question asked again), oldest first."""
    latest = {request.slot: request for batch in batches for request in batch.requests}
    return tuple(latest.values())


def _fetch_patch(entry: StackEntry, house: House) -> Path:
    folder = house.root / "work" / "patches" / entry.digest
    with suppress(IntegrityError):
        load_patch(folder, entry.digest)
        return folder
    # not here yet, or damaged since it was fetched
    folder.mkdir(parents=True, exist_ok=True)
    for name, blob in (("patch.json", entry.document), ("patch.safetensors", entry.tensors)):
        house.store.get_blob(blob.sha256, folder / name)
    load_patch(folder, entry.digest)
    return folder
