"""The object store: S3 through boto3, and the only place that imports it.

Blobs are content-addressed and never change. Records are written once (`put_new`). A pointer is the one thing ever
overwritten, by compare-and-swap (`swap_pointer`). Both need conditional writes, which some stores ignore: each store is
probed once, and such a one is refused. Every fault comes out as a `StoreError` that says what to do next; every method
may raise one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from editors.errors import ConfigError, IntegrityError, NotFound, PromotionConflict, StoreError

ATTEMPTS = 4
PART_BYTES = 16 * 2**20
PROBE_KEY = "probes/conditional-writes.json"
CONFLICTS = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
HINTS = {
    "AccessDenied": "these keys may not do that here: ask for s3:GetObject, s3:PutObject and s3:ListBucket",
    "InvalidAccessKeyId": "the store does not know this access key: check AWS_ACCESS_KEY_ID or the profile",
    "SignatureDoesNotMatch": "the secret key is not the one of this access key: check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "sign in again: these temporary keys are over, for example: aws sso login",
    "NoSuchBucket": "check the bucket's name and region, or create it: aws s3 mb s3://BUCKET",
    "InvalidBucketName": "check the bucket's name: 3 to 63 lower-case letters, digits and hyphens",
    "SSLError": "name the authority that signed the store's certificate: ca_bundle",
    "EndpointConnectionError": "check the endpoint's address and that the store runs",
    "ConnectTimeoutError": "check the endpoint's address, firewall and proxy",
    "ReadTimeoutError": "the store answers too slowly: run the same command again, finished work is kept",
    "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run: aws configure",
    "ENOSPC": "free some space and run the same command again",
}
FORBIDDEN = HINTS["AccessDenied"]
UNKNOWN = "check the store's address, keys and settings, then run the same command again"
LACKS = "publish to a store that honours conditional writes: AWS S3, SeaweedFS, MinIO, Ceph"
AGAIN = "run the same command again; finished work is kept"


class ImmutableConflict(StoreError):
    """A write-once object exists with other bytes."""


class StoreLacksConditionalWrites(StoreError):
    """The store ignores If-None-Match or If-Match: two promotions could both win."""


class PointerMoved(PromotionConflict):
    """A pointer is not where its writer last saw it; carries what is there now, None for nothing."""

    def __init__(self, message: str, current_body: bytes | None, current_etag: str | None) -> None:
        super().__init__(message, hint="look at what is there now, and decide again")
        self.current_body = current_body
        self.current_etag = current_etag


@dataclass(frozen=True)
class StoreLocation:
    """A bucket and a prefix, and how to reach them. Without keys boto3's own chain finds them."""

    bucket: str
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: SecretStr | None = field(default=None, repr=False)
    ca_bundle: Path | None = None
    may_create_bucket: bool = False
    """True for the embedded server only: elsewhere a bucket has an owner and a bill."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix", self.prefix.strip("/"))
        endpoint = urlsplit(self.endpoint_url or "http://aws")
        if endpoint.scheme not in ("http", "https") or not endpoint.hostname or "@" in endpoint.netloc:
            raise ConfigError("store.endpoint_url must be http(s)://host[:port] without user name or password")

    @classmethod
    def parse(cls, url: str, **connection: Any) -> StoreLocation:
        """Read `s3://bucket/prefix`; `connection` holds the other fields.

        Raises:
            ConfigError: When it is no such URL.
        """
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc or parts.query or parts.fragment:
            raise ConfigError(f"a store reads s3://bucket/prefix, got {url!r}")
        return cls(bucket=parts.netloc, prefix=parts.path, **connection)

    @property
    def url(self) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


@dataclass(frozen=True)
class StoredObject:
    """One object: its key below the store's prefix, its size, and its ETag as the store gave it."""

    key: str
    size_bytes: int
    etag: str


@dataclass(frozen=True)
class BlobReceipt:
    """A blob's digest and size, and the bytes really moved: 0 when the store had it already."""

    digest: str
    size_bytes: int
    moved_bytes: int


class Store:
    """One bucket and prefix. Threads may share it. Keys are relative to the prefix."""

    def __init__(self, location: StoreLocation) -> None:
        self.location = location
        self._quotes_etags: bool | None = None

    def head(self, key: str) -> StoredObject:
        """Size and ETag of one object; raises NotFound when there is none."""
        with self._operation("head", key) as target:
            answer = self._client.head_object(**target)
        return StoredObject(key, answer["ContentLength"], answer["ETag"])

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
        found = (StoredObject(row["Key"].removeprefix(root), row["Size"], row["ETag"]) for row in rows)
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
                present = _sha256(self.get_bytes(key)[0])
                if present == _sha256(body):
                    return False
                raise ImmutableConflict(
                    f"{self._where(key)} is write-once and holds sha256 {present}, not {_sha256(body)}",
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
        digest = _sha256(source) if isinstance(source, bytes) else _file_sha256(source)
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
            self._delete(key)
            raise IntegrityError(f"{source} changed while it was uploaded as sha256 {digest}", hint=AGAIN)
        return BlobReceipt(digest, size, size)

    def get_blob(self, digest: str, to_path: Path) -> None:
        """Bring a blob to disk, verified before it takes its name.

        Raises:
            NotFound: When the store has no such blob.
            IntegrityError: When its bytes do not have its digest; nothing is left on disk.
        """
        key = blob_key(digest)
        partial = to_path.with_name(f".{to_path.name}.{uuid.uuid4().hex}.partial")
        try:
            with self._operation("get", key) as target, partial.open("xb") as file:
                self._client.download_fileobj(**target, Fileobj=file, Config=self._transfer)
                file.flush()
                os.fsync(file.fileno())
            if (found := _file_sha256(partial)) != digest:
                raise IntegrityError(
                    f"{self._where(key)} is damaged: expected sha256 {digest}, found {found}",
                    hint="publish the release again from a good copy, or restore the object",
                )
            partial.replace(to_path)
        finally:
            partial.unlink(missing_ok=True)

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
                self._delete(key)
        raise StoreLacksConditionalWrites(
            f"{self.location.url} at {self._endpoint} ignores If-None-Match or If-Match: two promotions could both win",
            hint=LACKS,
        )

    @property
    def _endpoint(self) -> str:
        return self.location.endpoint_url or f"AWS {self.location.region or 'default region'}"

    @cached_property
    def _client(self) -> Any:
        return _client(self.location)

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
        except _ConditionFailed:
            return None

    def _put(self, key: str, body: bytes, **condition: str) -> str:
        with self._operation("put", key) as target:
            answer = self._client.put_object(**target, Body=body, ChecksumAlgorithm="SHA256", **condition)
            return str(answer["ETag"])

    def _delete(self, key: str) -> None:
        with self._operation("delete", key) as target:
            self._client.delete_object(**target)

    @contextmanager
    def _operation(self, name: str, key: str) -> Iterator[dict[str, str]]:
        """Give the request's bucket and key; turn every fault into a typed error that names them."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        place = f"{name} {self._where(key)}"
        try:
            yield {"Bucket": self.location.bucket, "Key": self._object_key(key)}
        except ClientError as error:
            raise _refused(place, error.response) from error
        except Boto3Error as error:
            if isinstance(error.__context__, ClientError):
                raise _refused(place, error.__context__.response) from error
            raise StoreError(f"{place}: {error}", UNKNOWN) from error
        except BotoCoreError as error:
            kind = type(error).__name__
            raise StoreError(f"{place}: {error}", HINTS.get(kind, UNKNOWN)) from error
        except OSError as error:
            hint = HINTS["ENOSPC"] if error.errno == errno.ENOSPC else UNKNOWN
            raise StoreError(f"{place}: {error}", hint) from error


class _ConditionFailed(StoreError):
    """412 or 409: If-None-Match or If-Match does not hold."""


def blob_key(digest: str) -> str:
    """Where a blob of this sha256 lies, below the store's prefix."""
    return f"blobs/sha256/{digest}"


def answers(location: StoreLocation) -> bool:
    """Whether a signed ListBuckets succeeds, asked once and quickly."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        _client(location, attempts=1).list_buckets()
    except (BotoCoreError, ClientError):
        return False
    return True


def _client(location: StoreLocation, attempts: int = ATTEMPTS) -> Any:
    import boto3
    from botocore.config import Config

    host = urlsplit(location.endpoint_url).hostname if location.endpoint_url else None
    config = Config(
        connect_timeout=5,
        # Losers of a contended conditional write have been seen to wait 4 s for their answer.
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": attempts},
        # Four files at once, each in four parts.
        max_pool_connections=16,
        s3={"addressing_style": "path" if host else "auto"},
        proxies={} if host in ("127.0.0.1", "localhost", "::1") else None,
    )
    return boto3.session.Session().client(
        "s3",
        endpoint_url=location.endpoint_url,
        region_name=location.region,
        aws_access_key_id=location.access_key,
        aws_secret_access_key=location.secret_key.get_secret_value() if location.secret_key else None,
        verify=str(location.ca_bundle) if location.ca_bundle else None,
        config=config,
    )


def _refused(place: str, response: Any) -> StoreError:
    """The typed error for an answer that the store gave."""
    code = str(response.get("Error", {}).get("Code", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    message = f"{place}: HTTP {status} {code} {response.get('Error', {}).get('Message', '')}".rstrip()
    if code in CONFLICTS:
        return _ConditionFailed(message, AGAIN)
    if code == "NotImplemented":
        return StoreLacksConditionalWrites(message, LACKS)
    if status == 404 and code != "NoSuchBucket":
        return NotFound(message, "check the name; to see what is there: suture history CHANNEL")
    return StoreError(message, HINTS.get(code, FORBIDDEN if status == 403 else UNKNOWN))


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _changed(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns, before.st_ino) != (after.st_size, after.st_mtime_ns, after.st_ino)
