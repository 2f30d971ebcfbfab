"""How boto3 is spoken to: time-outs, attempts, addressing, keys, and what is asked of every write.

Keys, profiles, roles to assume, single sign-on and a private authority (`AWS_CA_BUNDLE`) are found by boto3's own chain.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from tasks.store_location import StoreLocation

ATTEMPTS = 4
READ_SECONDS = 60.0
"""Losers of a contended conditional write have been seen to wait 4 s for their answer."""
WRITES = ("PutObject", "CreateMultipartUpload", "CopyObject")
RECORDS = ("releases", "decisions", "ledger")
"""Folders of a model whose objects are written once and are to stay."""


def answers(location: StoreLocation) -> bool:
    """Whether a signed ListBuckets succeeds, asked once and quickly."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client_of(location, attempts=1).list_buckets()
    except (BotoCoreError, ClientError):
        return False
    return True


def client_of(location: StoreLocation, attempts: int = ATTEMPTS) -> Any:
    """A boto3 client for the location, patient enough for contended conditional writes."""
    import boto3
    from botocore.config import Config

    host = urlsplit(location.endpoint_url).hostname if location.endpoint_url else None
    config = Config(
        connect_timeout=5,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": attempts},
        # Four files at once, each in four parts.
        max_pool_connections=16,
        s3={"addressing_style": "path" if host else "auto"},
        proxies={} if host in ("127.0.0.1", "localhost", "::1") else None,
    )
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=location.endpoint_url,
        region_name=location.region,
        aws_access_key_id=location.access_key,
        aws_secret_access_key=location.secret_key.get_secret_value() if location.secret_key else None,
        verify=str(location.ca_bundle) if location.ca_bundle else None,
        config=config,
    )
    for operation in WRITES:
        client.meta.events.register(f"provide-client-params.s3.{operation}", partial(_guarded, location))
    return client


def _guarded(location: StoreLocation, params: dict[str, Any], **_: Any) -> dict[str, Any]:
    """A write with the encryption and the lock that the location asks for."""
    asked: dict[str, Any] = {}
    if location.kms_key:
        asked = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": location.kms_key, "BucketKeyEnabled": True}
    if location.lock_days and is_kept(params["Key"].removeprefix(f"{location.prefix}/" if location.prefix else "")):
        until = datetime.now(UTC) + timedelta(days=location.lock_days)
        asked |= {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until}
    return {**params, **asked}


def is_kept(key: str) -> bool:
    """Whether an object is to be locked: the records, and the blobs without which they would be worth nothing."""
    top, *rest = key.split("/")
    return top == "blobs" or (top == "models" and len(rest) > 2 and rest[1] in RECORDS)
