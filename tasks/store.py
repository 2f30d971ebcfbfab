"""The object store: S3 through boto3, and the only place that imports it.

Blobs are content-addressed and never change. Records are written once (`put_new`). A pointer is the one thing ever
overwritten, by compare-and-swap (`swap_pointer`). Both need conditional writes, which some stores ignore: each store is
probed once, and such a one is refused. Every fault comes out as a `StoreError` that says what to do next; every method
may raise one.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from editors.digest import digest_bytes, digest_file
from editors.errors import IntegrityError, NotFound, StoreError
from tasks.store_client import ATTEMPTS, client_of
from tasks.store_errors import (
    AGAIN,
    HINTS,
    LACKS,
    TRASH,
    ConditionFailed,
    ImmutableConflict,
    PointerMoved,
    StoreLacksConditionalWrites,
    typed_errors,
)
from tasks.store_location import BlobReceipt, StoredObject, StoreLocation

PART_BYTES = 16 * 2**20
PROBE_KEY = "probes/conditional-writes.json"

class Store:
    """One bucket and prefix. Threads may share it. Keys are relative to the prefix."""

    def __init__(self, location: StoreLocation) -> None:
        self.location = location
        self._quotes_etags: bool | None = None
        self.verified: dict[str, str] = {}
        """Manifests whose signature this process has checked: SHA-256 -> key of the signature."""

    def head(self, key: str) -> StoredObject:
        """Size and ETag of one object; raises NotFound when there is none."""
        with self._operation("head", key) as target:
            answer = self._client.head_object(**target)
        return StoredObject(key, answer["ContentLength"], answer["ETag"], answer["LastModified"])

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        with suppress(NotFound):
            return self.head(key) is not None
        return False

    def get_bytes(self, key: str) -> tuple[bytes, str]:
        """Bytes and ETag of a small object; raises NotFound when there is none."""
        with self._operation("get", key) as target:
            answer = self._client.get_object(**target)
            return answer["Body"].read(), answer["ETag"]

    def get_json(self, key: str) -> Any:
        """One JSON document; raises NotFound, and IntegrityError when it is not JSON."""
        try:
            return json.loads(self.get_bytes(key)[0])
        except ValueError as error:
            raise IntegrityError(f"{self._where(key)} is not JSON: {error}") from error

    def list(self, prefix: str = "") -> tuple[StoredObject, ...]:
        """The objects whose keys begin with `prefix`, ordered by key."""
        root = self._object_key("")
        with self._operation("list", prefix):
            paginator = self._client.get_paginator("list_objects_v2")
            pages = paginator.paginate(Bucket=self.location.bucket, Prefix=root + prefix)
            rows = [row for page in pages for row in page.get("Contents", ())]
        found = (StoredObject(row["Key"].removeprefix(root), row["Size"], row["ETag"], row["LastModified"]) for row in rows)
        return tuple(sorted(found, key=lambda stored: stored.key))

    def put_new(self, key: str, body: bytes) -> bool:
        """Write a write-once object; False when the same bytes are there already.

        Raises:
            ImmutableConflict: When it is there with other bytes.
            StoreLacksConditionalWrites: When the store would have overwritten it.
        """
        self.probe_conditional_writes()
        for attempt in range(ATTEMPTS):
            if self._put_if(key, body, IfNoneMatch="*"):
                return True
            with suppress(NotFound):
                present = digest_bytes(self.get_bytes(key)[0])
                if present == digest_bytes(body):
                    return False
                raise ImmutableConflict(
                    f"{self._where(key)} is write-once and holds sha256 {present}, not {digest_bytes(body)}",
                    hint="take the next version or sequence number",
                )
            time.sleep(0.1 * 2**attempt)
        raise StoreError(f"{self._where(key)}: the store reports a conflict, and no object", hint=AGAIN)

    def swap_pointer(self, key: str, body: bytes, expected_etag: str | None) -> str:
        """Move a pointer from the state last seen (None: it did not exist) and return its new ETag.

        The same body found in place counts as our own write, retried: put something unique into it.

        Raises:
            PointerMoved: When somebody else moved it first.
            StoreLacksConditionalWrites: When the store would let both win.
        """
        self.probe_conditional_writes()
        expected = {"IfNoneMatch": "*"} if expected_etag is None else {"IfMatch": self._as_sent(expected_etag)}
        for attempt in range(ATTEMPTS):
            if written := self._put_if(key, body, **expected):
                return written
            current: tuple[bytes | None, str | None] = (None, None)
            with suppress(NotFound):
                current = self.get_bytes(key)
            if current[0] == body and current[1]:
                return current[1]
            if current[1] != expected_etag:
                break
            time.sleep(0.1 * 2**attempt)
        raise PointerMoved(f"{self._where(key)} was moved by somebody else", *current)

    def put_blob(self, source: Path | bytes) -> BlobReceipt:
        """Store content under its own digest, from disk in parts; nothing moves when it is there already.

        Raises:
            IntegrityError: When the file changes while it is read.
        """
        before = None if isinstance(source, bytes) else source.stat()
        digest = digest_bytes(source) if isinstance(source, bytes) else digest_file(source)
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        key = blob_key(digest)
        with suppress(NotFound):
            if self.head(key).size_bytes == size:
                return BlobReceipt(digest, size, 0)
        with self._operation("put", key) as target:
            if isinstance(source, bytes):
                self._client.put_object(**target, Body=source, ChecksumAlgorithm="SHA256")
            else:
                self._client.upload_file(
                    str(source), *target.values(), ExtraArgs={"ChecksumAlgorithm": "SHA256"}, Config=self._transfer
                )
        if before and not isinstance(source, bytes) and _changed(before, source.stat()):
            self.remove(key)
            raise IntegrityError(f"{source} changed while it was uploaded as sha256 {digest}", hint=AGAIN)
        return BlobReceipt(digest, size, size)

    def get_blob(self, digest: str, to_path: Path) -> None:
        """Bring a blob to disk, verified before it takes its name; also one that a collection has put aside.

        Raises:
            NotFound: When the store has no such blob.
            IntegrityError: When its bytes do not have its digest; nothing is left on disk.
        """
        try:
            self._download(blob_key(digest), digest, to_path)
        except NotFound:
            with suppress(NotFound):
                return self._download(TRASH + blob_key(digest), digest, to_path)
            raise

    def _download(self, key: str, digest: str, to_path: Path) -> None:
        partial = to_path.with_name(f".{to_path.name}.{uuid.uuid4().hex}.partial")
        try:
            with self._operation("get", key) as target, partial.open("xb") as file:
                self._client.download_fileobj(**target, Fileobj=file, Config=self._transfer)
                file.flush()
                os.fsync(file.fileno())
            if (found := digest_file(partial)) != digest:
                raise IntegrityError(
                    f"{self._where(key)} is damaged: expected sha256 {digest}, found {found}",
                    hint="publish the release again from a good copy, or restore the object",
                )
            partial.replace(to_path)
        finally:
            partial.unlink(missing_ok=True)

    def move(self, key: str, to: str) -> None:
        """Put an object under another key, within the store; raises NotFound when there is none."""
        with self._operation("copy", key) as source, self._operation("copy", to) as target:
            self._client.copy(source, *target.values(), ExtraArgs={"ChecksumAlgorithm": "SHA256"}, Config=self._transfer)
        self.remove(key)

    def remove(self, key: str) -> None:
        """Delete an object for good; one that is gone already is no fault."""
        with self._operation("delete", key) as target:
            self._client.delete_object(**target)

    def clock(self) -> datetime:
        """The store's own time, by which ages of its objects are told."""
        with self._operation("head bucket", ""):
            answer = self._client.head_bucket(Bucket=self.location.bucket)
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])

    def ensure_bucket(self) -> None:
        """See that the bucket exists; only on the embedded server is a missing one made."""
        bucket = {"Bucket": self.location.bucket}
        try:
            with self._operation("head bucket", ""):
                self._client.head_bucket(**bucket)
        except NotFound:
            with self._operation("create bucket", ""):
                if not self.location.may_create_bucket:
                    raise StoreError(f"no bucket {self.location.bucket} at {self._endpoint}", HINTS["NoSuchBucket"]) from None
                self._client.create_bucket(**bucket)

    def probe_conditional_writes(self) -> None:
        """Find out, once for each store, whether it honours conditional writes and how it wants ETags.

        Raises:
            StoreLacksConditionalWrites: When it does not.
        """
        if self._quotes_etags is not None:
            return
        with suppress(NotFound, IntegrityError):
            remembered = self.get_json(PROBE_KEY)
            if remembered.get("endpoint") == self._endpoint:
                self._quotes_etags = bool(remembered["quotes_etags"])
                return
        self._quotes_etags = self._probe(f"probes/{uuid.uuid4().hex}")
        record = {"endpoint": self._endpoint, "quotes_etags": self._quotes_etags}
        self._put(PROBE_KEY, json.dumps(record).encode("utf-8"))

    def _probe(self, key: str) -> bool:
        try:
            first = self._put_if(key, b"1", IfNoneMatch="*")
            created_once = first and not self._put_if(key, b"2", IfNoneMatch="*")
            if first and created_once:
                for quotes, sent in ((True, first), (False, first.strip('"'))):
                    moved = self._put_if(key, b"3", IfMatch=sent)
                    if moved and not self._put_if(key, b"4", IfMatch=sent):
                        return quotes
        finally:
            with suppress(StoreError):
                self.remove(key)
        raise StoreLacksConditionalWrites(
            f"{self.location.url} at {self._endpoint} ignores If-None-Match or If-Match: two promotions could both win",
            hint=LACKS,
        )

    @property
    def _endpoint(self) -> str:
        return self.location.endpoint_url or f"AWS {self.location.region or 'default region'}"

    @cached_property
    def _client(self) -> Any:
        return client_of(self.location)

    @cached_property
    def _transfer(self) -> Any:
        from boto3.s3.transfer import TransferConfig

        return TransferConfig(multipart_threshold=2 * PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=4)

    def _object_key(self, key: str) -> str:
        return f"{self.location.prefix}/{key}" if self.location.prefix else key

    def _where(self, key: str) -> str:
        return f"s3://{self.location.bucket}/{self._object_key(key)} at {self._endpoint}"

    def _as_sent(self, etag: str) -> str:
        return etag if self._quotes_etags else etag.strip('"')

    def _put_if(self, key: str, body: bytes, **condition: str) -> str | None:
        """The new ETag, or None when the store says that the condition does not hold."""
        try:
            return self._put(key, body, **condition)
        except ConditionFailed:
            return None

    def _put(self, key: str, body: bytes, **condition: str) -> str:
        with self._operation("put", key) as target:
            answer = self._client.put_object(**target, Body=body, ChecksumAlgorithm="SHA256", **condition)
            return str(answer["ETag"])

    @contextmanager
    def _operation(self, name: str, key: str) -> Iterator[dict[str, str]]:
        """Give the request's bucket and key; every fault comes out typed and names them."""
        with typed_errors(f"{name} {self._where(key)}"):
            yield {"Bucket": self.location.bucket, "Key": self._object_key(key)}


def blob_key(digest: str) -> str:
    """Where a blob of this sha256 lies, below the store's prefix."""
    return f"blobs/sha256/{digest}"


def _changed(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns, before.st_ino) != (after.st_size, after.st_mtime_ns, after.st_ino)
