"""What can go wrong at a store, as typed errors that say what to do next."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from editors.errors import NotFound, PromotionConflict, StoreError

CONFLICTS = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
HINTS = {
    "AccessDenied": "these keys may not do that here: ask for s3:GetObject, s3:PutObject and s3:ListBucket",
    "InvalidAccessKeyId": "the store does not know this access key: check AWS_ACCESS_KEY_ID or the profile",
    "SignatureDoesNotMatch": "the secret key is not the one of this access key: check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "sign in again: these temporary keys are over, for example: aws sso login",
    "NoSuchBucket": "check the bucket's name and region, or create it: aws s3 mb s3://BUCKET",
    "InvalidBucketName": "check the bucket's name: 3 to 63 lower-case letters, digits and hyphens",
    "InvalidRequest": "if it is about object lock: make the bucket with it, or unset SUTURE_LOCK_DAYS",
    "SSLError": "name the authority that signed the store's certificate: ca_bundle",
    "EndpointConnectionError": "check the endpoint's address and that the store runs",
    "ConnectTimeoutError": "check the endpoint's address, firewall and proxy",
    "ReadTimeoutError": "the store answers too slowly: run the same command again, finished work is kept",
    "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run: aws configure",
    "ENOSPC": "free some space and run the same command again",
}
FORBIDDEN = HINTS["AccessDenied"]
TRASH = "trash/"
"""What is put before the key of an object that lies aside, until it is removed for good."""
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


class ConditionFailed(StoreError):
    """412 or 409: If-None-Match or If-Match does not hold."""


@contextmanager
def typed_errors(place: str) -> Iterator[None]:
    """Turn every fault inside the block into a typed error that begins with `place`."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
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


def _refused(place: str, response: Any) -> StoreError:
    """The typed error for an answer that the store gave."""
    code = str(response.get("Error", {}).get("Code", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    message = f"{place}: HTTP {status} {code} {response.get('Error', {}).get('Message', '')}".rstrip()
    if code in CONFLICTS:
        return ConditionFailed(message, AGAIN)
    if code == "NotImplemented":
        return StoreLacksConditionalWrites(message, LACKS)
    if status == 404 and code != "NoSuchBucket":
        return NotFound(message, "check the name; to see what is there: suture history CHANNEL")
    return StoreError(message, HINTS.get(code, FORBIDDEN if status == 403 else UNKNOWN))
