"""How boto3 is spoken to: time-outs, attempts, addressing, keys."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from tasks.store_location import StoreLocation

ATTEMPTS = 4
READ_SECONDS = 60.0
"""Losers of a contended conditional write have been seen to wait 4 s for their answer."""


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
    return boto3.session.Session().client(
        "s3",
        endpoint_url=location.endpoint_url,
        region_name=location.region,
        aws_access_key_id=location.access_key,
        aws_secret_access_key=location.secret_key.get_secret_value() if location.secret_key else None,
        verify=str(location.ca_bundle) if location.ca_bundle else None,
        config=config,
    )
