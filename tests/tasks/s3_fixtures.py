"""Real S3 servers for tests: SeaweedFS over HTTP and over HTTPS, one each for the whole session."""

from __future__ import annotations

import datetime
import ipaddress
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.s3_server import S3Endpoint, TlsFiles, embedded_s3


@pytest.fixture(scope="session")
def s3_http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Endpoint]:
    """A running S3 server without TLS; `.location(bucket)` gives a store's settings."""
    with embedded_s3(tmp_path_factory.mktemp("s3_http"), linger_seconds=0.0) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def s3_https(tmp_path_factory: pytest.TempPathFactory, tls_files: TlsFiles) -> Iterator[S3Endpoint]:
    """A running S3 server with TLS under a certificate of its own."""
    with embedded_s3(tmp_path_factory.mktemp("s3_https"), tls=tls_files, linger_seconds=0.0) as endpoint:
        yield endpoint


@pytest.fixture
def bucket() -> str:
    """A bucket name that no other test uses; `Store.ensure_bucket` makes it."""
    return f"test-{uuid.uuid4().hex[:16]}"


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """A self-signed certificate for 127.0.0.1 and its key."""
    folder = tmp_path_factory.mktemp("tls")
    return write_certificate(folder / "certificate.pem", folder / "key.pem")


def write_certificate(certificate_path: Path, key_path: Path) -> TlsFiles:
    """Make a one-day certificate for the loopback address."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "suture test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.touch(mode=0o600)
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key_path.write_bytes(key.private_bytes(*pem))
    return TlsFiles(certificate_path, key_path)
