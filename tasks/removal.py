"""An edit out of a channel's stack: which one, what must go on holding without it, and the candidate that remains.

Nothing new is taught, so the batch of a removal is what stays: every accepted request of the other edits. Each is measured
in the present release and in the candidate, and the policy `removal` holds it to what the release did.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editors.contract import EditBatch, EditRequest
from editors.digest import digest_document
from editors.errors import ConfigError
from editors.loading import Checkpoint
from editors.patch import load_patch
from tasks import channel as channels
from tasks import ledger
from tasks.house import House, model_folder
from tasks.intake import accepted, fetch_stack, find_base, materialise
from tasks.manifest import Contents, base_version, candidate_digest, version_of
from tasks.policy import policy_of
from tasks.records import Edited, Order, Remaining, Removal
from tasks.removal_record import RECORD, read_record
from validations.earlier.examination import kept_requests

if TYPE_CHECKING:
    from tasks.channel import ChannelState

def order_removal(model: str, version: str, channel: str, policy: str | None, reason: str, house: House) -> Removal:
    """The removal of the edit that `version` brought from what the channel serves now.

    Raises:
        NotFound: there is no such version or channel.
        ConfigError: the channel does not hold the edit, it withdrew a secret, it is the only one, nothing that stays can be
            measured, or the policy is wrong.
    """
    state = channels.read(house.store, model, channel)
    if state is None:
        channels.read_pointer(house.store, model, channel)
        raise ConfigError(f"channel {channel} of {model} was opened only now", "run the same command again")
    place = _place(state, version, house)
    if state.stack[place].purpose == "forget":
        raise ConfigError(f"version {version} withdrew a secret on request; without it the model tells it again",
                          f"suture rollback {channel} --to VERSION (the ledger keeps who did it)")
    if len(state.stack) == 1:
        raise ConfigError(f"version {version} brought the only edit that channel {channel} holds",
                          f"suture rollback {channel} --to {base_version(state.manifest.base.digest)}")
    order = _order(state, place, channel, policy, house).model_copy(
        update={"sheet": f"suture remove {version} --from {channel}"})
    policy_of(order)
    return Removal(order=order, version=version, place=place, by=house.user, reason=reason)


def take_out(removal: Removal, house: House) -> Remaining:
    """The stack without the edit and the candidate that it makes; both found again when they were made before.

    Raises:
        ConfigError: the channel stood at this very stack before.
        IntegrityError: the base is not the one that the stack was made for, or rounding erases a remaining update.
    """
    order, place = removal.order, removal.place
    base = Checkpoint(order.base_folder)

    def work(folder: Path) -> dict[str, Any]:
        from editors.bake import bake
        from editors.stack import inverse, without

        patches = [load_patch(path) for path in order.stack]
        remaining = without(base, patches, order.patch_digests[place])
        digests = [patch.save(folder / f"{number:04d}") for number, patch in enumerate(remaining)]
        target = model_folder(house, order.base_digest, tuple(digests))
        shutil.rmtree(target, ignore_errors=True)
        return {"stack": digests, "inverse": inverse(patches[place]).save(folder),
                "checkpoint": bake(base, remaining, target).digest}

    inputs = {"base": order.base_digest, "stack": order.patch_digests, "without": order.patch_digests[place]}
    done = house.workspace.run("remove-1", inputs, work)
    checkpoint, digests = done.document["checkpoint"], done.document["stack"]
    _refuse_release(order, version_of(candidate_digest(order.base_digest, digests, checkpoint)), house)
    stack = (*order.stack[:place], *(done.folder / f"{number:04d}" for number in range(place, len(digests))))
    candidate = materialise(base, stack, house, checkpoint)
    size = sum((done.folder / name).stat().st_size for name in ("patch.json", "patch.safetensors"))
    return Remaining(stack=stack, edited=Edited(
        folder=done.folder, patch_digest=done.document["inverse"], patch_bytes=size, candidate_folder=candidate.folder,
        candidate_digest=checkpoint))


def removed_by(model: str, version: str, channel: str, house: House) -> str | None:
    """The version on the channel's present line that took out the edit of `version`; None when none did."""
    state = channels.read(house.store, model, channel)
    for contents in _line(state, house) if state else ():
        record = read_record(contents, house)
        if record is not None and record["version"] == version:
            return contents.version
    return None


def _place(state: ChannelState, version: str, house: House) -> int:
    """Where the edit stands now. A batch names its edit for good, whatever its patch was readdressed to."""
    contents = channels.read_version(house.store, state.manifest.model, version)
    if not contents.stack:
        raise ConfigError(f"version {version} is the unedited base and brought no edit", "name a version that brought one")
    if (record := read_record(contents, house)) is not None:
        raise ConfigError(f"version {version} brought no edit: it took out that of {record['version']}",
                          "name the version that brought the edit")
    batches = [entry.batch.sha256 for entry in state.stack]
    if contents.stack[-1].batch.sha256 not in batches:
        brought = {one.stack[-1].batch.sha256: one.version for one in _line(state, house) if RECORD not in one.artefacts}
        known = ", ".join(brought.get(batch, "an edit of another line") for batch in batches)
        raise ConfigError(f"channel {state.pointer.channel} does not hold the edit of version {version}; it holds those of: "
                          f"{known or 'none'}", f"see what they ask: suture show {version}")
    return batches.index(contents.stack[-1].batch.sha256)


def _line(state: ChannelState, house: House) -> Iterator[Contents]:
    """The release of a channel, what it was made on top of, and so on to the first edit."""
    contents: Contents | None = state.manifest
    while contents is not None and contents.stack:
        yield contents
        contents = channels.read_version(house.store, contents.model, contents.parent) if contents.parent else None


def _order(state: ChannelState, place: int, channel: str, policy: str | None, house: House) -> Order:
    manifest = state.manifest
    base = find_base(manifest.base.name, house)
    if base.digest != manifest.base.digest:
        raise ConfigError(f"{manifest.base.name} is {base.digest[:12]} now, channel {channel} was built on "
                          f"{manifest.base.digest[:12]}", "restore the base where that name leads")
    folders = fetch_stack(manifest, house)
    parent = materialise(base, folders, house, manifest.checkpoint)
    batches = channels.read_batches(house.store, manifest)
    stays = accepted((*batches[:place], *batches[place + 1:]))
    batch = EditBatch(purpose="removal", base_digest=base.digest, parent_digest=parent.digest, requests=apart(stays))
    if not batch.updates and not kept_requests(batch, ()):
        raise ConfigError(f"nothing that stays in channel {channel} can be asked again: secrets are kept as seals, and the "
                          "manner of free text is not measured anew",
                          f"suture rollback {channel} --to VERSION (the ledger keeps who did it)")
    return Order(
        sheet="", sheet_digest=digest_document({"without": manifest.patch_digests[place], "stack": manifest.patch_digests}),
        model=manifest.model, channel=channel, base=manifest.base.name, base_folder=base.folder, base_digest=base.digest,
        parent_version=manifest.version, parent_folder=parent.folder, parent_digest=parent.digest, stack=folders,
        patch_digests=manifest.patch_digests, history=(), batch=batch, method="auto", options={}, layers=None,
        position="auto", trace=False, policy=policy, requester=house.user)


def apart(requests: tuple[EditRequest, ...]) -> tuple[EditRequest, ...]:
    """The requests under ids of their own: an id is one of a sheet, and several sheets come together here."""
    seen: Counter[str] = Counter()
    named = []
    for request in requests:
        seen[request.id] += 1
        count = seen[request.id]
        named.append(request if count == 1 else request.model_copy(update={"id": f"{request.id} ({count})"}))
    return tuple(named)


def _refuse_release(order: Order, version: str, house: House) -> None:
    stood = [record.entry.to_version for record in ledger.history(house.store, order.model, order.channel)]
    if version in stood:
        raise ConfigError(f"channel {order.channel} without this edit is version {version}, where it stood before",
                          f"suture rollback {order.channel} --to {version}")
