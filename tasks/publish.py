"""Publishing: files, then the manifest, then the pointer, then the ledger. Only the pointer ever changes.

Each step can be repeated: killed anywhere, the same command finishes the work and moves nothing that is there. Before its first
promotion a channel is opened at the unedited base, published like any release, so that rollback always has somewhere to go.
Rollback follows the parents: after promoting A, B and C it leads to B, then A, then the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from editors.contract import Frozen, Progress, silent
from editors.digest import digest_bytes
from editors.errors import ConfigError, IntegrityError, NotFound, PromotionConflict
from editors.loading import Checkpoint
from tasks import channel as channels
from tasks import decisions, ledger
from tasks.candidate import Transfer, folder_files, upload
from tasks.channel import ChannelState, address
from tasks.manifest import (
    Approval,
    BaseReference,
    Blob,
    Candidate,
    Cause,
    Contents,
    LedgerEntry,
    Pointer,
    ReleaseManifest,
    base_version,
    candidate_digest,
    channel_key,
    now,
    release_key,
    serialise,
)
from tasks.store import Store
from tasks.store_errors import ImmutableConflict, PointerMoved
from validations.approval import person

Target = tuple[ReleaseManifest, str]
"""A manifest and its SHA-256."""


class Release(Frozen):
    """A published version: where its manifest is, the manifest's SHA-256, and what publishing moved."""

    uri: str
    model: str
    version: str
    digest: str
    manifest: str
    transfer: Transfer


class Moved(Frozen):
    """Where a channel stands now. `files` are the release's digests: equal files mean bit-identical releases."""

    uri: str
    kind: str
    channel: str
    from_version: str | None
    to_version: str
    manifest: str
    sequence: int
    """Its number in the ledger."""
    by: str
    at: str
    found: bool
    """True when the channel stood there already and nothing moved."""
    files: Mapping[str, Blob]


def publish_base(store: Store, model: str, base: BaseReference, baked: Checkpoint,
                 progress: Progress = silent) -> Release:
    """Publish the unedited base, baked with an empty stack so that its shards are those of the edits to come.

    Where it is published already, the folder is read only for files that the store has lost.

    Raises:
        IntegrityError: the folder is not the base.
    """
    try:
        manifest, _ = channels.read_release(store, model, base_version(base.digest))
    except NotFound:
        manifest = _unedited(model, base, baked)
    return _write(store, manifest, upload(store, manifest, baked.folder, progress))


def publish(store: Store, candidate: Candidate, folder: Path | None, progress: Progress = silent) -> Release:
    """Publish an approved candidate: the files that are not there yet, then its manifest.

    `folder` is the baked folder; None where `upload` brought the files before.

    Raises:
        GateRefused: the gate refused it.
        ApprovalMissing: not enough people approved exactly this candidate, or somebody refused it.
        IntegrityError: a file is not the one that was judged.
        NotFound: a file is neither in the store nor in the folder.
    """
    stands = decisions.require(store, candidate)
    transfer = upload(store, candidate, folder, progress)
    try:
        return _write(store, _approved(candidate, stands), transfer)
    except ImmutableConflict:
        # somebody published it before on earlier approvals; it stays as it is if they were sound
        manifest, _ = channels.read_release(store, candidate.model, candidate.version)
        _check_approved(store, manifest)
        return _write(store, manifest, transfer)


def point(store: Store, release: Release, channel: str, cause: Cause) -> Moved:
    """Move the channel to a release made on top of the one it stands at, and enter the move into the ledger.

    Raises:
        PromotionConflict: the channel stands elsewhere; the message says who moved it, when and to what.
        GateRefused: the gate refused the version.
        ApprovalMissing: nobody approved it.
        IntegrityError: the manifest is not the published one, or the channel's line has another base.
    """
    target = channels.read_release(store, release.model, release.version, release.manifest)
    manifest = target[0]
    decision = _check_approved(store, manifest) if manifest.stack else None
    state = channels.read(store, release.model, channel) or _open(store, manifest, channel, cause)
    recorded = ledger.heal(store, state.pointer)
    if state.pointer.version == manifest.version:
        return _moved(store, recorded, manifest, found=True)
    if state.manifest.base.digest != manifest.base.digest:
        raise IntegrityError(f"channel {channel} stands on the base {state.manifest.base.digest}, version "
                             f"{manifest.version} on {manifest.base.digest}", "promote it to a channel of its own base")
    if state.pointer.version != manifest.parent:
        raise _conflict(state.pointer, manifest)
    return _move(store, (state.pointer, state.etag), target, _entry("promote", state.pointer, cause, target, decision))


def rollback(store: Store, model: str, channel: str, cause: Cause, to_version: str | None = None,
             began: str | None = None) -> Moved:
    """Move the channel back to the release that its current one was made on top of, or to any it stood at before.

    The current release's manifest is not read: a damaged release can be left. A rollback that was cut short between pointer
    and ledger is finished instead of going one further back. One that was cut short later is as well where `began` is given,
    the digest of the entry at which the channel stood when this command was begun first.

    Raises:
        NotFound: there is no such channel.
        ConfigError: it stands at the unedited base, or never stood at `to_version`.
        PromotionConflict: somebody else moved the channel meanwhile.
        IntegrityError: the release's manifest is not the one that was promoted.
    """
    pointer, etag = channels.read_pointer(store, model, channel)
    known = ledger.history(store, model, channel)
    recorded = ledger.heal(store, pointer)
    entry, was_cut_short = pointer.entry, recorded not in known
    stood = {record.entry.to_version: record.entry for record in (*known, recorded)}
    own = (entry.kind, entry.by, entry.reason) == ("rollback", cause.by, cause.reason)
    if own and (was_cut_short or (to_version is None and began is not None and began == entry.previous)):
        wanted = pointer.version
    else:
        wanted = to_version or _before(channel, pointer.version, (*known, recorded))
    if wanted not in stood:
        raise ConfigError(f"channel {channel} never stood at {wanted}", f"see its moves: suture history {channel}")
    target = channels.read_release(store, model, wanted, stood[wanted].manifest)
    if wanted == pointer.version:
        return _moved(store, recorded, target[0], found=not was_cut_short)
    step = _entry("rollback", pointer, cause, target, stood[wanted].decision)
    return _move(store, (pointer, etag), target, step)


def _write(store: Store, manifest: ReleaseManifest, transfer: Transfer) -> Release:
    key, body = release_key(manifest.model, manifest.version), serialise(manifest)
    store.put_new(key, body)
    return Release(uri=address(store, key), model=manifest.model, version=manifest.version, digest=manifest.digest,
                   manifest=digest_bytes(body), transfer=transfer)


def _unedited(model: str, base: BaseReference, baked: Checkpoint) -> ReleaseManifest:
    if baked.digest != base.digest:
        raise IntegrityError(f"{baked.folder} is not the base {base.name}: expected digest {base.digest}, "
                             f"found {baked.digest}", "fetch the base again")
    return ReleaseManifest(
        model=model, version=base_version(base.digest), digest=candidate_digest(base.digest, (), base.digest), base=base,
        parent=None, stack=(), checkpoint=base.digest, files=folder_files(baked), verdict=None, approvals=(),
    )


def _approved(candidate: Candidate, stands: decisions.Standing) -> ReleaseManifest:
    contents = candidate.model_dump(include=set(Contents.model_fields))
    return ReleaseManifest(**contents, approvals=tuple(
        Approval(by=record.decision.by, decision=record.digest) for record in stands.deciding))


def _check_approved(store: Store, manifest: ReleaseManifest) -> str:
    """The digest of the first decision that let exactly this manifest out.

    The manifest may name other approvals than those that count today: it was published on earlier ones.
    """
    return check_named(store, manifest, decisions.require(store, channels.read_candidate(
        store, manifest.model, manifest.version)))


def check_named(store: Store, manifest: ReleaseManifest, stands: decisions.Standing) -> str:
    """The first of the decisions that a manifest names: that they were made about what it holds, whenever that was.

    Raises:
        IntegrityError: they were not.
    """
    candidate = channels.read_candidate(store, manifest.model, manifest.version)
    given = {record.digest: record.decision.by for record in stands.records if record not in stands.foreign}
    named = {person(approval.by) for approval in manifest.approvals if given.get(approval.decision) == approval.by}
    enough = 1 if person(decisions.AUTOMATIC.by) in named else stands.rule.required
    same = manifest.model_copy(update={"approvals": ()}) == _approved(candidate, stands).model_copy(update={"approvals": ()})
    if not same or len(named) < max(enough, len(manifest.approvals)):
        who = " and ".join(record.decision.by for record in stands.deciding)
        raise IntegrityError(f"{address(store, release_key(manifest.model, manifest.version))} is not what {who} approved",
                             "restore the manifest from a backup")
    return manifest.approvals[0].decision


def _open(store: Store, manifest: ReleaseManifest, channel: str, cause: Cause) -> ChannelState:
    """Open the channel at the base; whoever loses the race finds it open."""
    model, base = manifest.model, base_version(manifest.base.digest)
    if base not in (manifest.version, manifest.parent):
        raise PromotionConflict(f"channel {channel} does not exist, and version {manifest.version} was made on top of "
                                f"{manifest.parent}, not of the unedited base",
                                "make the edit for this channel: set `channel:` in the sheet, suture edit SHEET")
    try:
        _, digest = channels.read_release(store, model, base)
    except NotFound as error:
        raise NotFound(f"the unedited base {base} of {model} is not published: {error.message}",
                       "run the promotion where the edit was made") from error
    entry = LedgerEntry(kind="open", channel=channel, move=1, by=cause.by, reason=cause.reason, at=now(), from_version=None,
                        to_version=base, manifest=digest, verdict=None, decision=None, previous=None)
    with suppress(PointerMoved):
        _swap(store, model, entry, None)
    state = channels.read(store, model, channel)
    if state is None:
        raise IntegrityError(f"channel {channel} of {model} vanished while it was opened", "run the same command again")
    return state


def _conflict(pointer: Pointer, manifest: ReleaseManifest) -> PromotionConflict:
    entry = pointer.entry
    done = {"open": "opened it at", "promote": "promoted", "rollback": "rolled it back to"}[entry.kind]
    return PromotionConflict(
        f"channel {entry.channel} moved: {entry.by} {done} {pointer.version} at {entry.at} ({entry.reason}); "
        f"version {manifest.version} was made on top of {manifest.parent}",
        f"suture edit SHEET    (the same sheet again: it starts from {pointer.version} now)",
    )


def _before(channel: str, version: str, records: tuple[ledger.LedgerRecord, ...]) -> str:
    """The version that `version` was promoted on top of."""
    for record in reversed(records):
        if record.entry.to_version == version and record.entry.from_version and record.entry.kind == "promote":
            return record.entry.from_version
    raise ConfigError(f"channel {channel} stands at the unedited base {version}: nothing is before it",
                      f"see its moves: suture history {channel}")


def _entry(kind: Literal["promote", "rollback"], pointer: Pointer, cause: Cause, target: Target,
           decision: str | None) -> LedgerEntry:
    manifest, digest = target
    return LedgerEntry(
        kind=kind, channel=pointer.channel, move=pointer.entry.move + 1, by=cause.by, reason=cause.reason, at=now(),
        from_version=pointer.version, to_version=manifest.version, manifest=digest,
        verdict=manifest.verdict.sha256 if manifest.verdict else None, decision=decision, previous=pointer.entry.digest,
    )


def _move(store: Store, seen: tuple[Pointer, str], target: Target, entry: LedgerEntry) -> Moved:
    manifest, etag = target[0], seen[1]
    try:
        pointer = _swap(store, manifest.model, entry, etag)
    except PointerMoved as error:
        pointer, _ = channels.read_pointer(store, manifest.model, entry.channel)
        if pointer.version != manifest.version:
            raise _conflict(pointer, manifest) from error
        return _moved(store, ledger.heal(store, pointer), manifest, found=True)
    return _moved(store, ledger.heal(store, pointer), manifest, found=False)


def _swap(store: Store, model: str, entry: LedgerEntry, etag: str | None) -> Pointer:
    pointer = Pointer(model=model, channel=entry.channel, version=entry.to_version, manifest=entry.manifest, entry=entry)
    store.swap_pointer(channel_key(model, entry.channel), serialise(pointer), etag)
    return pointer


def _moved(store: Store, recorded: ledger.LedgerRecord, manifest: ReleaseManifest, *, found: bool) -> Moved:
    entry = recorded.entry
    return Moved(uri=address(store, channel_key(manifest.model, entry.channel)), kind=entry.kind, channel=entry.channel,
                 from_version=entry.from_version, to_version=entry.to_version, manifest=entry.manifest,
                 sequence=recorded.sequence, by=entry.by, at=entry.at, found=found, files=manifest.files)
