"""Reading a line of releases: pointer, then manifest, then stack, each verified by the digest that names it."""

from __future__ import annotations

from contextlib import suppress
from typing import TypeVar

from editors.contract import EditBatch, Frozen
from editors.digest import digest_bytes
from editors.errors import IntegrityError, NotFound
from tasks.manifest import (
    Blob,
    Candidate,
    Contents,
    Pointer,
    ReleaseManifest,
    StackEntry,
    candidate_key,
    channel_key,
    parse,
    release_key,
)
from tasks.signing import verify_release
from tasks.store import Store, blob_key
from tasks.store_errors import TRASH

Version = TypeVar("Version", bound=Contents)


class ChannelState(Frozen):
    """Where a channel stands; `etag` is what the next move is compared with."""

    uri: str
    etag: str
    pointer: Pointer
    manifest: ReleaseManifest

    @property
    def stack(self) -> tuple[StackEntry, ...]:
        """The accepted edits, in order."""
        return self.manifest.stack


def address(store: Store, key: str) -> str:
    """The URI of a key."""
    return f"{store.location.url}/{key}"


def read(store: Store, model: str, channel: str) -> ChannelState | None:
    """The channel's pointer, manifest and stack; None when the channel was never opened.

    Raises:
        IntegrityError: the pointer or the manifest was tampered with, or the manifest is gone.
    """
    try:
        pointer, etag = read_pointer(store, model, channel)
    except NotFound:
        return None
    try:
        manifest, _ = read_release(store, model, pointer.version, pointer.manifest)
    except NotFound as error:
        raise IntegrityError(f"channel {channel} points at {pointer.version}, whose manifest is gone: {error.message}",
                             f"restore it, or leave it: suture rollback {channel}") from error
    return ChannelState(uri=address(store, channel_key(model, channel)), etag=etag, pointer=pointer, manifest=manifest)


def read_pointer(store: Store, model: str, channel: str) -> tuple[Pointer, str]:
    """The channel's pointer and its ETag.

    Raises:
        NotFound: the channel was never opened.
        IntegrityError: it contradicts itself, or is another channel's.
    """
    key = channel_key(model, channel)
    try:
        body, etag = store.get_bytes(key)
    except NotFound as error:
        raise NotFound(f"no channel {channel} of {model} in {store.location.url}",
                       "open it by promoting a version: suture promote VERSION") from error
    pointer = parse(Pointer, body, address(store, key))
    if (pointer.model, pointer.channel) != (model, channel):
        raise IntegrityError(f"{address(store, key)} is the pointer of {pointer.model}, channel {pointer.channel}",
                             "restore the pointer from a backup")
    return pointer, etag


def read_release(store: Store, model: str, version: str, expected: str | None = None) -> tuple[ReleaseManifest, str]:
    """A published version's manifest and its SHA-256; `expected` is the SHA-256 that a pointer or the ledger names.

    Where the store is told whose signatures count, this is the one door, and behind it is no release without one.

    Raises:
        NotFound: no such release.
        IntegrityError: the manifest is not the expected one, contradicts itself, or lacks a signature that counts.
    """
    key = release_key(model, version)
    body, _ = store.get_bytes(key)
    found = digest_bytes(body)
    if expected is not None and found != expected:
        raise IntegrityError(f"{address(store, key)} was changed: expected sha256 {expected}, found {found}",
                             "restore it from a backup, or leave this release: suture rollback CHANNEL")
    manifest = _named(parse(ReleaseManifest, body, address(store, key)), model, version, address(store, key))
    if store.location.verifier is not None and found not in store.verified:
        store.verified[found] = verify_release(store, manifest, body, store.location.verifier)
    return manifest, found


def read_candidate(store: Store, model: str, version: str) -> Candidate:
    """A judged version's record.

    Raises:
        NotFound: no such candidate.
        IntegrityError: the record contradicts itself.
    """
    key = candidate_key(model, version)
    return _named(parse(Candidate, store.get_bytes(key)[0], address(store, key)), model, version, address(store, key))


def read_version(store: Store, model: str, version: str) -> Contents:
    """A version, published or not: its release, else its candidate.

    Raises:
        NotFound: neither is there.
        IntegrityError: the record contradicts itself.
    """
    try:
        return read_release(store, model, version)[0]
    except NotFound:
        pass
    try:
        return read_candidate(store, model, version)
    except NotFound as error:
        raise NotFound(f"no version {version} of {model} in {store.location.url}",
                       "see the versions: suture history CHANNEL") from error


def read_document(store: Store, blob: Blob, what: str) -> bytes:
    """A small blob's bytes, verified; `what` names it in errors.

    Raises:
        IntegrityError: it is gone, or its bytes have another digest.
    """
    return read_blob(store, blob.sha256, what)


def read_blob(store: Store, digest: str, what: str) -> bytes:
    """The bytes of a small blob whose size nobody wrote down; raises as `read_document`."""
    try:
        body = _bytes_of(store, blob_key(digest))
    except NotFound as error:
        raise IntegrityError(f"{what} is gone: {error.message}", "restore the blob from a backup") from error
    if (found := digest_bytes(body)) != digest:
        raise IntegrityError(f"{what} is damaged: expected sha256 {digest}, found {found}",
                             "restore the blob from a backup")
    return body


def read_batches(store: Store, contents: Contents) -> tuple[EditBatch, ...]:
    """The requests of every edit in the stack, in order.

    Raises:
        IntegrityError: one is gone or damaged.
    """
    bodies = (read_document(store, entry.batch, f"the batch of patch {entry.digest[:12]}") for entry in contents.stack)
    return tuple(parse(EditBatch, body, "a batch of the stack") for body in bodies)


def _bytes_of(store: Store, key: str) -> bytes:
    try:
        return store.get_bytes(key)[0]
    except NotFound:
        # a collection that ran beside a publish may have put it aside
        with suppress(NotFound):
            return store.get_bytes(TRASH + key)[0]
        raise


def _named(record: Version, model: str, version: str, where: str) -> Version:
    if (record.model, record.version) != (model, version):
        raise IntegrityError(f"{where} describes {record.model} version {record.version}",
                             "restore the object from a backup")
    return record
