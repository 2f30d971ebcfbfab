"""The authority of one's own: its certificate is trusted under this machine's names, by whoever names it, until it runs out."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from tasks.authority import VALID_DAYS, certified
from tasks.s3_server import TlsFiles


def shake_hands(files: TlsFiles, client: ssl.SSLContext, name: str) -> None:
    """A whole handshake between a server with this certificate and a client, in memory."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    asking = client.wrap_bio(to_client, to_server, server_hostname=name)
    waiting = [asking, server]
    while waiting:
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return certified(tmp_path_factory.mktemp("made") / "tls")


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_who_names_the_authority_trusts_this_machine(files: TlsFiles, name: str) -> None:
    client = ssl.create_default_context(cafile=files.authority)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    shake_hands(files, client, name)


def test_nobody_else_does_and_no_other_name_is_trusted(files: TlsFiles, tmp_path: Path) -> None:
    other = certified(tmp_path / "other")
    for authority, name in ((other.authority, "localhost"), (files.authority, "store.example")):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(files, ssl.create_default_context(cafile=authority), name)


def test_its_key_is_closed_to_others_and_the_authoritys_is_nowhere(files: TlsFiles) -> None:
    assert files.key.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in files.key.parent.iterdir()) == ["authority.pem", "server.key", "server.pem"]
    root = x509.load_pem_x509_certificate(files.authority.read_bytes())
    own = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    own.verify_directly_issued_by(root)
    assert own.public_key() != root.public_key()


def test_it_stays_until_a_month_before_it_runs_out(tmp_path: Path) -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    first = certified(tmp_path, began).certificate.read_bytes()
    assert certified(tmp_path, began + timedelta(days=VALID_DAYS - 31)).certificate.read_bytes() == first
    second = certified(tmp_path, began + timedelta(days=VALID_DAYS - 29)).certificate.read_bytes()
    assert second != first
    assert x509.load_pem_x509_certificate(second).not_valid_after_utc == began + timedelta(days=2 * VALID_DAYS - 29)
