"""From a judged edit to a candidate in the store, which can be shown, approved and promoted from any machine.

Everything small goes up at once: patch, requests, verdict, evidence. The weights follow with `upload`, in one call while nobody
has decided yet (or the gate refused), or as part of publishing; a shard that is there already does not move again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from editors.contract import EditBatch, Frozen, Progress, silent
from editors.digest import digest_file
from editors.errors import ConfigError, IntegrityError, NotFound
from editors.loading import INDEX, Checkpoint
from tasks import decisions
from tasks.channel import address, read_candidate
from tasks.manifest import (
    BaseReference,
    Blob,
    Candidate,
    Contents,
    ReleaseManifest,
    StackEntry,
    base_version,
    candidate_digest,
    candidate_key,
    serialise,
    version_of,
)
from tasks.store import Store, blob_key
from tasks.store_errors import ImmutableConflict
from validations.contract import Measurements, Verdict
from validations.policy import Policy

UPLOADS_AT_ONCE = 4


@dataclass(frozen=True)
class Brought:
    """A patch that a version has and its parent has not, with the requests that it carries out."""

    patch: Path
    """Folder of `patch.json` and `patch.safetensors`."""
    method: str
    batch: EditBatch


@dataclass(frozen=True)
class Dossier:
    """What a judged version brings along."""

    model: str
    """The name its releases are kept under."""
    channel: str
    base: BaseReference
    parent: ReleaseManifest | None
    """The release it was made on top of; None for the unedited base."""
    kept: tuple[StackEntry, ...]
    """The parent's patches that stay as they are: all of them for an edit, those below the gap for a removal."""
    brought: tuple[Brought, ...]
    """The patches on top of them: the edit's own, or those readdressed by a removal."""
    batch: EditBatch
    """What was judged."""
    verdict: Verdict
    measurements: Measurements
    artefacts: Mapping[str, Path] = field(default_factory=dict)
    """Other evidence by name: the page, the gate's own result, tables and pictures of the locator."""
    policy: Policy | None = None
    """What judged it: kept with the candidate, for it says who may approve. None: one approval by anybody."""
    requesters: tuple[str, ...] = ()
    """Who asked for it, each once."""


class Staged(Frozen):
    """A candidate in the store; `found` when this very candidate was there already."""

    uri: str
    candidate: Candidate
    found: bool


class Transfer(Frozen):
    """How much there was to upload and how much really moved."""

    blobs: int
    moved_blobs: int
    size_bytes: int
    moved_bytes: int


def stage_candidate(store: Store, dossier: Dossier, baked: Checkpoint) -> Staged:
    """Write the candidate of a judged edit. The same edit judged again by the same policy keeps its first record.

    Another policy may judge a version anew until somebody has decided about it; the former record is kept as a blob.

    Raises:
        IntegrityError: the verdict is about other weights, another parent, batch or other measurements.
        ConfigError: another policy judges a version about which a decision was made.
    """
    _check_verdict(dossier, baked)
    candidate = _candidate(store, dossier, baked)
    key, body = candidate_key(candidate.model, candidate.version), serialise(candidate)
    try:
        return Staged(uri=address(store, key), candidate=candidate, found=not store.put_new(key, body))
    except ImmutableConflict:
        former = read_candidate(store, candidate.model, candidate.version)
    if former.policy != candidate.policy:
        candidate = _judged_anew(store, former, candidate)
        return Staged(uri=address(store, key), candidate=candidate, found=False)
    return Staged(uri=address(store, key), candidate=former, found=True)


def upload(store: Store, contents: Contents, folder: Path | None, progress: Progress = silent) -> Transfer:
    """Bring the version's Hugging Face files into the store; what is there does not move.

    `folder` is the baked folder; None where the files must be in the store already.

    Raises:
        IntegrityError: a file is not the one that was judged.
        NotFound: a file is neither in the store nor in the folder.
    """
    def bring(name: str) -> int:
        return _bring(store, name, contents.files[name], folder)

    moved: list[int] = []
    with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        for size in pool.map(bring, sorted(contents.files)):
            moved.append(size)
            progress("uploading", len(moved), len(contents.files))
    return Transfer(blobs=len(moved), moved_blobs=sum(size > 0 for size in moved),
                    size_bytes=sum(blob.size_bytes for blob in contents.files.values()), moved_bytes=sum(moved))


def folder_files(baked: Checkpoint) -> dict[str, Blob]:
    """The files of a Hugging Face folder: shards, index, config, tokenizer."""
    index = (INDEX,) if (baked.folder / INDEX).exists() else ()
    paths = (baked.folder / name for name in (*baked.shards, *index, *baked.carried_files))
    return {path.name: Blob(sha256=digest_file(path), size_bytes=path.stat().st_size) for path in paths}


def _bring(store: Store, name: str, blob: Blob, folder: Path | None) -> int:
    try:
        if store.head(blob_key(blob.sha256)).size_bytes == blob.size_bytes:
            return 0
    except NotFound as error:
        if folder is None:
            raise NotFound(f"{name} (sha256 {blob.sha256}) is not in the store yet",
                           "run the same command where the edit was made, or make the edit again here") from error
    path = (folder or Path()) / name
    try:
        found = digest_file(path)
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read: {error}", "make the edit again: suture edit SHEET") from error
    if found != blob.sha256:
        raise IntegrityError(f"{path} is not the file that was judged: expected sha256 {blob.sha256}, found {found}",
                             "make the edit again: suture edit SHEET")
    return store.put_blob(path).moved_bytes


def _check_verdict(dossier: Dossier, baked: Checkpoint) -> None:
    verdict, parent = dossier.verdict, dossier.parent
    pairs = {
        "weights": (verdict.candidate_digest, baked.digest),
        "parent": (verdict.parent_digest, parent.checkpoint if parent else dossier.base.digest),
        "batch": (verdict.batch_digest, dossier.batch.digest),
        "measurements": (verdict.measurements_digest, dossier.measurements.digest),
        "base": (parent.base.digest if parent else dossier.base.digest, dossier.base.digest),
        "rules": (verdict.policy_digest, dossier.policy.digest if dossier.policy else verdict.policy_digest),
    }
    for what, (judged, found) in pairs.items():
        if judged != found:
            raise IntegrityError(f"the verdict is about other {what}: judged {judged}, found {found}",
                                 "measure and judge again: suture edit SHEET")


def _candidate(store: Store, dossier: Dossier, baked: Checkpoint) -> Candidate:
    verdict = dossier.verdict
    parent = dossier.parent
    stack = (*dossier.kept, *(_stack_entry(store, brought) for brought in dossier.brought))
    digest = candidate_digest(dossier.base.digest, [entry.digest for entry in stack], baked.digest)
    artefacts = {name: _put(store, path) for name, path in dossier.artefacts.items()}
    artefacts["measurements.json"] = _put(store, serialise(dossier.measurements))
    return Candidate(
        model=dossier.model, version=version_of(digest), digest=digest, base=dossier.base,
        parent=parent.version if parent else base_version(dossier.base.digest), stack=stack, checkpoint=baked.digest,
        files=folder_files(baked), verdict=_put(store, serialise(verdict)), artefacts=artefacts,
        state="passed" if verdict.passed else "refused", policy=verdict.policy_digest, channel=dossier.channel,
        rules=_put(store, dossier.policy.content) if dossier.policy else None, requesters=dossier.requesters,
    ).sealed()


def _stack_entry(store: Store, brought: Brought) -> StackEntry:
    document = brought.patch / "patch.json"
    tensors = _put(store, brought.patch / "patch.safetensors")
    promised = json.loads(document.read_bytes())["tensors_sha256"]
    if promised != tensors.sha256:
        raise IntegrityError(f"{brought.patch}/patch.safetensors has sha256 {tensors.sha256}, expected {promised}",
                             "make the edit again: suture edit SHEET")
    return StackEntry(document=_put(store, document), tensors=tensors, batch=_put(store, serialise(brought.batch)),
                      purpose=brought.batch.purpose, method=brought.method, request_count=len(brought.batch.requests))


def _judged_anew(store: Store, former: Candidate, candidate: Candidate) -> Candidate:
    """Replace the record of an undecided version; whoever decides meanwhile decides about the former verdict."""
    made = decisions.find(store, former.model, former.digest)
    if made:
        raise ConfigError(f"version {former.version} was judged by policy {former.policy[:12]} and decided about by "
                          f"{made[0].decision.by}; policy {candidate.policy[:12]} comes too late",
                          "change the edit itself (method, layers, requests) to make another version")
    key = candidate_key(former.model, former.version)
    body, etag = store.get_bytes(key)
    renewed = candidate.model_copy(update={"supersedes": _put(store, body).sha256}).sealed()
    store.swap_pointer(key, serialise(renewed), etag)
    return renewed


def _put(store: Store, source: Path | bytes) -> Blob:
    receipt = store.put_blob(source)
    return Blob(sha256=receipt.digest, size_bytes=receipt.size_bytes)
