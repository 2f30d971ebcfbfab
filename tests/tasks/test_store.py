"""The store against a real S3 server: races, damage, refusals, and what each error says."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from editors.errors import ConfigError, IntegrityError, NotFound, StoreError
from tasks.s3_server import S3Endpoint
from tasks.store import Store, blob_key
from tasks.store_errors import ImmutableConflict, PointerMoved, StoreLacksConditionalWrites
from tasks.store_location import StoreLocation

RACERS = 8
on_real_server = pytest.mark.flow


@pytest.fixture(params=["s3_http", "s3_https"])
def store(request: pytest.FixtureRequest, bucket: str) -> Store:
    endpoint: S3Endpoint = request.getfixturevalue(request.param)
    made = Store(endpoint.location(bucket, "team/models"))
    made.ensure_bucket()
    return made


def race(action: Callable[[int], object]) -> list[object]:
    """Results of all racers, exceptions among them, started together."""
    barrier = threading.Barrier(RACERS)

    def run(racer: int) -> object:
        barrier.wait()
        try:
            return action(racer)
        except (StoreError, PointerMoved) as error:
            return error

    with ThreadPoolExecutor(RACERS) as pool:
        return list(pool.map(run, range(RACERS)))


@on_real_server
def test_objects_come_back_with_etag_json_and_order(store: Store) -> None:
    assert store.put_new("ledger/000002.json", b'{"entry": 2}')
    assert store.put_new("ledger/000001.json", b'{"entry": 1}')
    body, etag = store.get_bytes("ledger/000001.json")
    assert body == b'{"entry": 1}'
    assert store.head("ledger/000001.json").etag == etag
    assert store.get_json("ledger/000002.json") == {"entry": 2}
    assert [found.key for found in store.list("ledger/")] == ["ledger/000001.json", "ledger/000002.json"]
    assert not store.exists("ledger/000003.json")


@on_real_server
def test_a_record_is_written_once(store: Store) -> None:
    assert store.put_new("releases/1.json", b"one") is True
    assert store.put_new("releases/1.json", b"one") is False
    with pytest.raises(ImmutableConflict, match=r"releases/1\.json at http.* is write-once and holds sha256"):
        store.put_new("releases/1.json", b"two")
    assert store.get_bytes("releases/1.json")[0] == b"one"


@on_real_server
def test_of_eight_writers_of_one_record_exactly_one_wins(store: Store) -> None:
    store.probe_conditional_writes()
    outcomes = race(lambda racer: store.put_new("ledger/7.json", b"racer %d" % racer))
    assert outcomes.count(True) == 1
    assert sum(isinstance(outcome, ImmutableConflict) for outcome in outcomes) == RACERS - 1
    assert store.get_bytes("ledger/7.json")[0] == b"racer %d" % outcomes.index(True)


@on_real_server
@pytest.mark.parametrize("exists", [False, True])
def test_of_eight_promotions_exactly_one_wins_and_the_rest_learn_who(store: Store, exists: bool) -> None:
    seen = store.swap_pointer("channels/demo.json", b"before", None) if exists else None
    outcomes = race(lambda racer: store.swap_pointer("channels/demo.json", b"racer %d" % racer, seen))
    winners = [racer for racer, outcome in enumerate(outcomes) if isinstance(outcome, str)]
    assert len(winners) == 1
    losers = [outcome for outcome in outcomes if isinstance(outcome, PointerMoved)]
    assert len(losers) == RACERS - 1
    assert {loser.current_body for loser in losers} == {b"racer %d" % winners[0]}
    assert store.get_bytes("channels/demo.json") == (b"racer %d" % winners[0], outcomes[winners[0]])


@on_real_server
def test_a_repeated_swap_of_our_own_is_not_a_conflict(store: Store) -> None:
    first = store.swap_pointer("channels/demo.json", b"one", None)
    assert store.swap_pointer("channels/demo.json", b"one", None) == first
    second = store.swap_pointer("channels/demo.json", b"two", first)
    assert store.swap_pointer("channels/demo.json", b"two", first) == second
    with pytest.raises(PointerMoved, match=r"channels/demo\.json at .* was moved by somebody else"):
        store.swap_pointer("channels/demo.json", b"three", first)


@on_real_server
def test_a_pointer_that_was_never_there_cannot_be_moved_from_somewhere(store: Store) -> None:
    with pytest.raises(PointerMoved) as caught:
        store.swap_pointer("channels/none.json", b"one", '"d41d8cd98f00b204e9800998ecf8427e"')
    assert caught.value.current_body is None


@on_real_server
@pytest.mark.parametrize("size", [5, 40 * 2**20])
def test_a_blob_moves_once_and_comes_back_verified(store: Store, tmp_path: Path, size: int) -> None:
    source = tmp_path / "shard.safetensors"
    source.write_bytes(os.urandom(size))
    receipt = store.put_blob(source)
    assert receipt.size_bytes == receipt.moved_bytes == size
    assert store.put_blob(source).moved_bytes == 0
    assert store.put_blob(source.read_bytes()).digest == receipt.digest
    store.get_blob(receipt.digest, tmp_path / "pulled")
    assert (tmp_path / "pulled").read_bytes() == source.read_bytes()


@on_real_server
def test_a_damaged_blob_is_refused_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    receipt = store.put_blob(b"the right bytes")
    other = Store(store.location)
    other._put(blob_key(receipt.digest), b"the wrong bytes")
    with pytest.raises(IntegrityError, match=rf"expected sha256 {receipt.digest}, found [0-9a-f]{{64}}"):
        store.get_blob(receipt.digest, tmp_path / "pulled")
    assert list(tmp_path.iterdir()) == []


@on_real_server
def test_what_is_not_there_is_told_apart(store: Store, s3_http: S3Endpoint, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"get s3://.*/team/models/none at http.*: HTTP 404"):
        store.get_bytes("none")
    with pytest.raises(NotFound):
        store.get_blob("0" * 64, tmp_path / "pulled")
    missing = Store(replace(s3_http.location("no-such-bucket"), may_create_bucket=False))
    with pytest.raises(StoreError, match="NoSuchBucket") as caught:
        missing.get_bytes("any")
    assert not isinstance(caught.value, NotFound)
    with pytest.raises(StoreError, match="no bucket no-such-bucket at http"):
        missing.ensure_bucket()


@on_real_server
def test_wrong_keys_are_named_and_no_secret_is_shown(s3_http: S3Endpoint, bucket: str) -> None:
    wrong_secret = replace(s3_http.location(bucket), secret_key=SecretStr("not-the-secret-key"))
    unknown_key = replace(s3_http.location(bucket), access_key="UNKNOWNKEY")
    for location, code in ((wrong_secret, "SignatureDoesNotMatch"), (unknown_key, "InvalidAccessKeyId")):
        with pytest.raises(StoreError, match=f"HTTP 403 {code}") as caught:
            Store(location).get_bytes("any")
        shown = f"{caught.value} {caught.value.__cause__!r} {location!r} {s3_http!r}"
        assert s3_http.secret_key.get_secret_value() not in shown
        assert s3_http.access_key not in shown
        assert "not-the-secret-key" not in shown


def test_a_store_that_nobody_runs_is_unreachable() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{held.getsockname()[1]}"
        store = Store(StoreLocation("any", endpoint_url=endpoint, access_key="key", secret_key=SecretStr("secret")))
        with pytest.raises(StoreError, match=f"get s3://any/key at {endpoint}: Could not connect") as caught:
            store.get_bytes("key")
    assert "check the endpoint's address" in caught.value.hint


@on_real_server
def test_an_unknown_certificate_is_refused(s3_https: S3Endpoint, bucket: str) -> None:
    store = Store(replace(s3_https.location(bucket), ca_bundle=None))
    with pytest.raises(StoreError, match="CERTIFICATE_VERIFY_FAILED") as caught:
        store.get_bytes("any")
    assert "ca_bundle" in caught.value.hint


def test_no_keys_at_all_says_where_to_put_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreError, match="Unable to locate credentials") as caught:
        Store(StoreLocation("any", endpoint_url="http://127.0.0.1:9")).get_bytes("key")
    assert "AWS_PROFILE" in caught.value.hint


@on_real_server
def test_a_full_disk_on_the_way_down_says_so(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receipt = store.put_blob(b"some bytes")

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tasks.store.os.fsync", fail)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        store.get_blob(receipt.digest, tmp_path / "pulled")
    assert "free some space" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@on_real_server
@pytest.mark.parametrize("ignored", ["IfNoneMatch", "IfMatch"])
def test_a_store_that_ignores_conditions_is_refused(s3_http: S3Endpoint, bucket: str, ignored: str) -> None:
    store = Store(s3_http.location(bucket))
    store.ensure_bucket()
    put_object = store._client.put_object
    store._client.put_object = lambda **request: put_object(
        **{name: value for name, value in request.items() if name != ignored}
    )
    with pytest.raises(StoreLacksConditionalWrites, match="two promotions could both win"):
        store.swap_pointer("channels/demo.json", b"one", None)
    with pytest.raises(StoreLacksConditionalWrites, match="two promotions could both win"):
        store.put_new("ledger/000001.json", b"one")
    assert store.list() == ()


@on_real_server
def test_a_store_that_wants_bare_etags_is_understood(s3_http: S3Endpoint, bucket: str) -> None:
    store = Store(s3_http.location(bucket))
    store.ensure_bucket()
    put_object = store._client.put_object

    def wants_bare_etags(**request: str) -> object:
        if "IfMatch" in request:
            request["IfMatch"] = f'"{request["IfMatch"]}"'
        return put_object(**request)

    store._client.put_object = wants_bare_etags
    first = store.swap_pointer("channels/demo.json", b"one", None)
    assert store.swap_pointer("channels/demo.json", b"two", first)


@on_real_server
def test_the_probe_is_made_once_for_a_store(store: Store) -> None:
    store.probe_conditional_writes()
    again = Store(store.location)
    again._client.put_object = None
    again.probe_conditional_writes()


@pytest.mark.parametrize("url", ["http://bucket/prefix", "s3://", "s3:///prefix", "s3://user:word@bucket", "bucket"])
def test_a_url_that_is_no_store_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="a store reads s3://bucket/prefix"):
        StoreLocation.parse(url)


def test_a_location_is_read_from_its_url() -> None:
    location = StoreLocation.parse("s3://models/team/a/", region="eu-west-1")
    assert (location.bucket, location.prefix, location.url) == ("models", "team/a", "s3://models/team/a")
    with pytest.raises(ConfigError, match="endpoint_url"):
        StoreLocation("models", endpoint_url="https://key:secret@example.org")


def test_importing_the_store_does_not_import_boto3() -> None:
    program = "import sys, tasks.store, tasks.s3_server; sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
