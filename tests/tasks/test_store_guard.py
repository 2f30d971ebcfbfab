"""What a bucket's owner may ask for: locks that a real store keeps, a KMS key, roles, single sign-on, a private authority."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pydantic import SecretStr

from editors.errors import StoreError
from tasks.s3_server import S3Endpoint
from tasks.store import PART_BYTES, Store, blob_key
from tasks.store_client import client_of, is_kept
from tasks.store_location import StoreLocation

KEY = "arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-0000-0000-000000000000"
RECORD = "models/tiny/ledger/demo/00000001.json"
NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_CA_BUNDLE",
         "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "AWS_REGION")


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """AWS's own configuration, and nothing else that leads anywhere."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "team")
    (tmp_path / "config").write_text("[profile team]\n")
    return tmp_path / "config"


class Desk(BaseHTTPRequestHandler):
    """Gives out temporary keys as AWS STS and the portal of single sign-on do, and remembers who asked for what."""

    asked: list[tuple[str, str]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        self.asked.append((self.path, self.rfile.read(int(self.headers["Content-Length"])).decode()))
        until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        self._say("text/xml", f"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
            <Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>
            <Expiration>{until}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>""")

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["x-amz-sso_bearer_token"]))
        until = (datetime.now(UTC) + timedelta(hours=1)).timestamp() * 1000
        self._say("application/json", json.dumps({"roleCredentials": {
            "accessKeyId": "ASIASSO", "secretAccessKey": "s", "sessionToken": "t", "expiration": int(until)}}))

    def _say(self, kind: str, words: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(words.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def desk() -> Iterator[str]:
    Desk.asked.clear()
    server = HTTPServer(("127.0.0.1", 0), Desk)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def keys_of(location: StoreLocation) -> tuple[str, str]:
    found = client_of(location)._request_signer._credentials
    return found.get_frozen_credentials().access_key, found.method


def test_records_and_their_blobs_are_locked_and_what_moves_is_not() -> None:
    assert all(map(is_kept, (RECORD, blob_key("0" * 64), "models/tiny/releases/v.json", "models/tiny/decisions/d/p.json")))
    assert not any(map(is_kept, ("models/tiny/channels/demo.json", "models/tiny/candidates/v.json", "probes/p.json",
                                 "trash/" + RECORD, "trash/" + blob_key("0" * 64))))


def test_a_real_store_destroys_no_version_of_a_locked_record(s3_http: S3Endpoint, bucket: str, tmp_path: Path) -> None:
    location = replace(s3_http.location(bucket, "team"), lock_days=1.0)
    client = client_of(location)
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    store = Store(location)
    large = tmp_path / "large"
    large.write_bytes(b"7" * (2 * PART_BYTES + 1))
    store.put_new(RECORD, b"{}")
    whole = store.put_blob(large)
    store.swap_pointer("models/tiny/channels/demo.json", b"{}", None)
    for key in (RECORD, blob_key(whole.digest)):
        kept = client.head_object(Bucket=bucket, Key=f"team/{key}")
        assert kept["ObjectLockMode"] == "GOVERNANCE"
        assert timedelta(hours=23) < kept["ObjectLockRetainUntilDate"] - datetime.now(UTC) < timedelta(hours=25)
        with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
            client.delete_object(Bucket=bucket, Key=f"team/{key}", VersionId=kept["VersionId"])
    pointer = client.head_object(Bucket=bucket, Key="team/models/tiny/channels/demo.json")
    assert "ObjectLockMode" not in pointer
    client.delete_object(Bucket=bucket, Key="team/models/tiny/channels/demo.json", VersionId=pointer["VersionId"])


def test_a_bucket_without_locks_says_so(s3_http: S3Endpoint, bucket: str) -> None:
    store = Store(replace(s3_http.location(bucket), lock_days=1.0))
    store.ensure_bucket()
    with pytest.raises(StoreError) as raised:
        store.put_new(RECORD, b"{}")
    assert "SUTURE_LOCK_DAYS" in raised.value.hint


@pytest.mark.filterwarnings("ignore")
def test_every_write_names_the_key_that_encrypts_it(tmp_path: Path, profile: Path) -> None:
    from moto import mock_aws

    large = tmp_path / "large"
    large.write_bytes(b"7" * (2 * PART_BYTES + 1))
    with mock_aws():
        store = Store(StoreLocation("models", "team", region="us-east-1", access_key="moto", secret_key=SecretStr("moto"),
                                    kms_key=KEY, may_create_bucket=True))
        store.ensure_bucket()
        store.put_new(RECORD, b"{}")
        digest = store.put_blob(large).digest
        store.move(blob_key(digest), "trash/moved")
        for key in (RECORD, "trash/moved"):
            found = store._client.head_object(Bucket="models", Key=f"team/{key}")
            assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", KEY)
        assert hashlib.sha256(store.get_bytes("trash/moved")[0]).hexdigest() == digest


def test_a_profile_may_name_a_role_to_assume(profile: Path, desk: str) -> None:
    profile.write_text(f"""[profile me]
aws_access_key_id = AKIAME
aws_secret_access_key = s
[profile team]
region = eu-central-1
role_arn = arn:aws:iam::111122223333:role/suture-editor
source_profile = me
services = here
[services here]
sts =
  endpoint_url = {desk}
""")
    assert keys_of(StoreLocation("models")) == ("ASIAROLE", "assume-role")
    assert "RoleArn=arn%3Aaws%3Aiam%3A%3A111122223333%3Arole%2Fsuture-editor" in Desk.asked[0][1]
    assert client_of(StoreLocation("models")).meta.region_name == "eu-central-1"


def test_a_profile_may_sign_in_once_for_all(profile: Path, desk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.tokens import SSOTokenProvider

    tokens = profile.parent / "tokens"
    tokens.mkdir()
    # what `aws sso login` leaves lies in the user's own home, which botocore looks up when it is imported
    monkeypatch.setattr(SSOTokenProvider, "_SSO_TOKEN_CACHE_DIR", str(tokens))
    until = (datetime.now(UTC) + timedelta(hours=8)).strftime("%Y-%m-%dT%H:%M:%SZ")
    (tokens / f"{hashlib.sha1(b'house').hexdigest()}.json").write_text(json.dumps({"accessToken": "word", "expiresAt": until}))
    profile.write_text(f"""[sso-session house]
sso_region = eu-central-1
sso_start_url = https://house.example/start
[profile team]
region = eu-central-1
sso_session = house
sso_account_id = 111122223333
sso_role_name = suture-editor
services = here
[services here]
sso =
  endpoint_url = {desk}
""")
    assert keys_of(StoreLocation("models")) == ("ASIASSO", "sso")
    assert Desk.asked == [("/federation/credentials?role_name=suture-editor&account_id=111122223333", "word")]


def test_a_private_authority_may_be_named_as_boto3_names_it(
    s3_https: S3Endpoint, bucket: str, profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = replace(s3_https.location(bucket), ca_bundle=None)
    with pytest.raises(StoreError, match="certificate"):
        Store(without).ensure_bucket()
    profile.write_text(f"[profile team]\nca_bundle = {s3_https.ca_bundle}\n")
    Store(without).ensure_bucket()
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(s3_https.ca_bundle))
    Store(without).ensure_bucket()

