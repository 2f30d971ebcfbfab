"""Where a store is, how to reach it, and what it says of an object."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from editors.errors import ConfigError

if TYPE_CHECKING:
    from tasks.signing import Verifier


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
    kms_key: str | None = None
    """AWS KMS key that encrypts what is written here. None: the bucket's own encryption."""
    lock_days: float | None = None
    """So long no version of a record, or of a blob, written from here can be destroyed. None: as the bucket says."""
    may_create_bucket: bool = False
    """True for the embedded server only: elsewhere a bucket has an owner and a bill."""
    verifier: Verifier | None = None
    """Whose signatures count: no release is read without one. None: releases need no signature."""

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
    """One object: its key below the store's prefix, its size, its ETag as the store gave it, and when it was written."""

    key: str
    size_bytes: int
    etag: str
    modified: datetime


@dataclass(frozen=True)
class BlobReceipt:
    """A blob's digest and size, and the bytes really moved: 0 when the store had it already."""

    digest: str
    size_bytes: int
    moved_bytes: int
