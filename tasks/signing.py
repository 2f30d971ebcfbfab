"""Signatures over releases, by OpenSSF Model Signing: whoever can write to the bucket can still not make a release.

What is signed is a small folder: the release's manifest, which names every file, patch, verdict and approval by its digest, and
where secrets were withdrawn, the certificate as well. The signature (a Sigstore bundle) lies beside the manifest, one for
each signer, so that a new key can sign what an old one did. A store that is told whose signatures count gives no release
without one.

Source: OpenSSF Model Signing v1.0, https://github.com/sigstore/model-transparency.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editors.digest import digest_bytes, digest_file
from editors.errors import ConfigError, IntegrityError, NotFound
from tasks.closed_file import check_closed
from tasks.manifest import ReleaseManifest, parse, plain, release_key
from tasks.store import Store, blob_key
from tasks.store_errors import ImmutableConflict

MANIFEST = "manifest.json"
CERTIFICATE = "certificate.html"
SUFFIX = ".sig"


class SignatureError(IntegrityError):
    """A release has no signature that counts here."""


@dataclass(frozen=True)
class Signer:
    """Whose signature releases get."""

    key: Path
    """Private key, PEM, on the curve P-256, P-384 or P-521; closed to others."""
    certificate: Path | None = None
    """Certificate of that key, PEM; None: signatures name the bare key."""
    chain: Path | None = None
    """Certificates between that one and the authority, PEM."""

    @property
    def name(self) -> str:
        """What tells this signer's signatures from others': the digest of its certificate or of its public key."""
        return digest_file(self.certificate)[:16] if self.certificate else digest_bytes(_public_key(self.key))[:16]

    def sign(self, folder: Path, to: Path) -> None:
        """Sign a folder.

        Raises:
            ConfigError: the key is missing, open to others, encrypted or of another kind, or not the certificate's.
        """
        check_closed(self.key, "the signing key", f"openssl ecparam -name prime256v1 -genkey -noout -out {self.key}")
        library = _library()
        try:
            if self.certificate is None:
                config = library.signing.Config().use_elliptic_key_signer(private_key=self.key)
            else:
                # an empty chain is no chain to the library's reader; the certificate twice changes nothing
                config = library.signing.Config().use_certificate_signer(
                    private_key=self.key, signing_certificate=self.certificate,
                    certificate_chain=[self.chain or self.certificate])
        except Exception as error:  # the library lets through whatever its own libraries raise
            raise ConfigError(f"the signing key {self.key} cannot be used: {_reason(error)}",
                              "give an unencrypted PEM key on the curve P-256, and the certificate made for it") from error
        config.sign(folder, to)


@dataclass(frozen=True)
class Verifier:
    """Whose signatures count: a public key, or whoever has a certificate of these authorities."""

    key: Path | None = None
    """Public key, PEM."""
    authorities: Path | None = None
    """Certificates of the authorities, PEM."""

    def __post_init__(self) -> None:
        if (self.key is None) == (self.authorities is None):
            raise ConfigError("signatures are checked by a key or by authorities, one of the two",
                              "set SUTURE_VERIFY_KEY or SUTURE_VERIFY_AUTHORITIES")

    def problem(self, folder: Path, signature: Path) -> str | None:
        """Why a signature does not count for a folder; None when it does.

        Raises:
            ConfigError: the key or the certificates cannot be read.
        """
        config = self._config()
        try:
            config.verify(folder, signature)
        except Exception as error:  # a signature is read by five libraries, and each raises its own
            return _reason(error)
        return None

    def _config(self) -> Any:
        config = _library().verifying.Config()
        try:
            if self.key is not None:
                return config.use_elliptic_key_verifier(public_key=self.key)
            return config.use_certificate_verifier(certificate_chain=[self.authorities])
        except Exception as error:  # as above
            raise ConfigError(f"{self.key or self.authorities} cannot be used to check signatures: {_reason(error)}",
                              "give a public key on the curve P-256, or certificates, as PEM") from error


def sign_release(store: Store, model: str, version: str, signer: Signer) -> str:
    """Sign a published release, once for each signer; returns the key of the signature.

    Raises:
        NotFound: there is no such release.
        IntegrityError: its manifest or certificate is damaged.
        ConfigError: the key cannot be used.
    """
    key = f"{_prefix(model, version)}{signer.name}{SUFFIX}"
    if store.exists(key):
        return key
    body, _ = store.get_bytes(release_key(model, version))
    manifest = parse(ReleaseManifest, body, release_key(model, version))
    with _folder(store, manifest, body) as folder, tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "signature"
        signer.sign(folder, made)
        # signatures are never the same twice: of two processes that sign at once, one is heard
        with suppress(ImmutableConflict):
            store.put_new(key, made.read_bytes())
    return key


def verify_release(store: Store, manifest: ReleaseManifest, body: bytes, verifier: Verifier) -> str:
    """The key of the signature of a release that counts; `body` is the manifest as it was read.

    Raises:
        SignatureError: it has none, or none of those it has counts.
        IntegrityError: its certificate is damaged.
    """
    model, version = manifest.model, manifest.version
    where = f"release {version} of {model} in {store.location.url}"
    again = f"sign it where the signing key is: suture sign {version}"
    keys = [stored.key for stored in store.list(_prefix(model, version)) if stored.key.endswith(SUFFIX)]
    if not keys:
        raise SignatureError(f"{where} is not signed, and signatures are required here", again)
    problems = []
    with _folder(store, manifest, body) as folder, tempfile.TemporaryDirectory() as scratch:
        signature = Path(scratch) / "signature"
        for key in keys:
            signature.write_bytes(store.get_bytes(key)[0])
            problem = verifier.problem(folder, signature)
            if problem is None:
                return key
            problems.append(problem)
    raise SignatureError(f"{where} has no signature that counts: {'; '.join(problems)}",
                         f"{again}; if it was signed there, somebody changed it: restore it from a backup")


@contextmanager
def _folder(store: Store, manifest: ReleaseManifest, body: bytes) -> Iterator[Path]:
    """The folder that is signed, on disk inside the block."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / f"{manifest.model}-{manifest.version}"
        folder.mkdir()
        (folder / MANIFEST).write_bytes(body)
        if (blob := manifest.artefacts.get(CERTIFICATE)) is not None:
            try:
                store.get_blob(blob.sha256, folder / CERTIFICATE)
            except NotFound as error:
                raise IntegrityError(f"the certificate of release {manifest.version} is gone: {blob_key(blob.sha256)}",
                                     "restore the blob from a backup") from error
        yield folder


def _prefix(model: str, version: str) -> str:
    return f"models/{plain(model)}/releases/{plain(version)}."


def _public_key(path: Path) -> bytes:
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"the signing key {path} cannot be read: {_reason(error)}",
                          "give an unencrypted PEM key on the curve P-256") from error
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _library() -> Any:
    try:
        import model_signing
    except ImportError as error:
        raise ConfigError(f"signatures need the package model-signing: {error}",
                          "make setup, or: pip install 'model-signing>=1.1' pyOpenSSL") from error
    return model_signing


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return (text[:200] + "...") if len(text) > 200 else text or type(error).__name__
