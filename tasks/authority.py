"""A certificate authority of one's own, for servers on this machine: clients trust its certificate, by name, and nothing else.

It signs one certificate and its key is thrown away, so nobody can sign another in its name. Both run out together; they are
made anew a month before.
"""

from __future__ import annotations

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tasks.s3_server import TlsFiles

VALID_DAYS = 365
RENEW_DAYS = 30
NAMES = ("localhost",)
ADDRESSES = ("127.0.0.1", "::1")


def certified(folder: Path, moment: datetime | None = None) -> TlsFiles:
    """The certificate of this machine's servers, its key and its authority, in `folder`; made where they are missing or old.

    Args:
        folder: Where they are kept, closed to others.
        moment: What time it is; None: now.
    """
    files = TlsFiles(folder / "server.pem", folder / "server.key", folder / "authority.pem")
    now = moment or datetime.now(UTC)
    if not _lasts(files, now):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make(files, now)
    return files


def _lasts(files: TlsFiles, now: datetime) -> bool:
    from cryptography import x509

    if not all(path and path.is_file() for path in (files.certificate, files.key, files.authority)):
        return False
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    return certificate.not_valid_after_utc - now > timedelta(days=RENEW_DAYS)


def _make(files: TlsFiles, now: datetime) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    alternatives = [*map(x509.DNSName, NAMES), *(x509.IPAddress(ipaddress.ip_address(one)) for one in ADDRESSES)]
    root = _signed("Suture's own authority", authority, None, authority, now, [
        (x509.BasicConstraints(ca=True, path_length=0), True), (_usage(signs=True), True)])
    leaf = _signed("Suture's servers on this machine", key, root, authority, now, [
        (x509.BasicConstraints(ca=False, path_length=None), True), (_usage(signs=False), True),
        (x509.SubjectAlternativeName(alternatives), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False),
        (x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), False)])
    _write(files.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    _write(files.certificate, leaf.public_bytes(Encoding.PEM))
    if files.authority:
        _write(files.authority, root.public_bytes(Encoding.PEM))


def _signed(name: str, key: Any, issuer: Any, signer: Any, now: datetime, extensions: list[tuple[Any, bool]]) -> Any:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer.subject if issuer else subject)
               .public_key(key.public_key()).serial_number(x509.random_serial_number())
               # a clock that is a little slow must not refuse it
               .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=VALID_DAYS))
               .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False))
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    return builder.sign(signer, hashes.SHA256())


def _usage(*, signs: bool) -> Any:
    from cryptography import x509

    return x509.KeyUsage(digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
                         key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                         decipher_only=False)


def _write(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    partial.replace(path)
