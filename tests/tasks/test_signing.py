"""With a key, a release bears a signature; where signatures are required, what bears none is not read by anybody."""

from __future__ import annotations

import base64
import datetime
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from editors.errors import ConfigError, IntegrityError
from flows.house import signer_of
from flows.services import verifier_of
from flows.settings import Settings
from tasks import channel
from tasks.manifest import ReleaseManifest, release_key, serialise
from tasks.publish import Release, point, rollback
from tasks.pull import pull
from tasks.signing import CERTIFICATE, SignatureError, Signer, Verifier, sign_release
from tasks.store import Store
from tests.tasks.release_line import ADA, CHANNEL, MODEL, Made, make_edit, promote, publish_edit, same_connection, tamper

pytestmark = pytest.mark.flow
NOW = datetime.datetime.now(datetime.UTC)


def key_pair(folder: Path, name: str) -> tuple[Path, Path, ec.EllipticCurvePrivateKey]:
    """Private and public key as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                          serialization.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM,
                                                     serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public, key


def certificate(folder: Path, name: str, key: ec.EllipticCurvePrivateKey, issuer: str,
                issuer_key: ec.EllipticCurvePrivateKey, *, may_issue: bool) -> Path:
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, one)]) for one in (name, issuer)]
    usage = x509.KeyUsage(digital_signature=not may_issue, content_commitment=False, key_encipherment=False,
                          data_encipherment=False, key_agreement=False, key_cert_sign=may_issue, crl_sign=may_issue,
                          encipher_only=False, decipher_only=False)
    made = (x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(NOW).not_valid_after(NOW + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=may_issue, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
            .sign(issuer_key, hashes.SHA256()))
    path = folder / f"{name}.crt"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Signer, Verifier]:
    private, public, _ = key_pair(tmp_path, "release")
    return Signer(private), Verifier(key=public)


@pytest.fixture
def edit(tmp_path: Path) -> Made:
    return make_edit(tmp_path / "edit", 1)


def strict(store: Store, verifier: Verifier) -> Store:
    """The same store for somebody who wants signatures."""
    return same_connection(Store(replace(store.location, verifier=verifier)), store)


def signed(store: Store, edit: Made, signer: Signer) -> Release:
    """As the flow does: publish base and release, sign both."""
    release = publish_edit(store, edit)
    manifest, _ = channel.read_release(store, MODEL, release.version)
    for version in (manifest.parent, release.version):
        sign_release(store, MODEL, version, signer)
    return release


def test_a_signed_release_is_promoted_pulled_and_rolled_back(
        release_store: Store, edit: Made, keys: tuple[Signer, Verifier], tmp_path: Path) -> None:
    store = strict(release_store, keys[1])
    release = signed(release_store, edit, keys[0])
    point(store, release, CHANNEL, ADA)
    pulled = pull(store, channel.read(store, MODEL, CHANNEL).manifest, tmp_path / "pulled")
    assert pulled.version == release.version
    assert rollback(store, MODEL, CHANNEL, ADA).from_version == release.version
    assert len(store.verified) == 2


def test_an_unsigned_release_is_read_by_nobody_who_wants_signatures(
        release_store: Store, edit: Made, keys: tuple[Signer, Verifier]) -> None:
    store, release = strict(release_store, keys[1]), publish_edit(release_store, edit)
    said = f"release {release.version} of {MODEL} in s3://.* is not signed, and signatures are required here"
    with pytest.raises(SignatureError, match=said) as caught:
        point(store, release, CHANNEL, ADA)
    assert caught.value.hint == f"sign it where the signing key is: suture sign {release.version}"
    point_ungoverned = point(release_store, release, CHANNEL, ADA)
    assert point_ungoverned.to_version == release.version
    for reading in (lambda: channel.read(store, MODEL, CHANNEL), lambda: channel.read_version(store, MODEL, release.version)):
        with pytest.raises(SignatureError, match=said):
            reading()


def test_a_parent_without_a_signature_stops_the_next_edit(
        release_store: Store, edit: Made, keys: tuple[Signer, Verifier], tmp_path: Path) -> None:
    promote(release_store, edit)
    parent = channel.read(release_store, MODEL, CHANNEL).manifest
    following = publish_edit(release_store, make_edit(tmp_path / "next", 2, parent, edit.baked.folder))
    sign_release(release_store, MODEL, following.version, keys[0])
    with pytest.raises(SignatureError, match=f"release {parent.version} of {MODEL}"):
        point(strict(release_store, keys[1]), following, CHANNEL, ADA)


def test_a_manifest_changed_after_its_signature_is_named(
        release_store: Store, edit: Made, keys: tuple[Signer, Verifier]) -> None:
    release = signed(release_store, edit, keys[0])
    key = release_key(MODEL, release.version)
    changed = json.loads(release_store.get_bytes(key)[0])
    changed["files"]["config.json"]["sha256"] = "0" * 64
    tamper(release_store, key, json.dumps(changed).encode())
    with pytest.raises(SignatureError, match=rf"release {release.version} .* no signature that counts: .*manifest.json"):
        channel.read_release(strict(release_store, keys[1]), MODEL, release.version)


def test_somebody_elses_signature_does_not_count_and_a_new_key_signs_anew(
        release_store: Store, edit: Made, keys: tuple[Signer, Verifier], tmp_path: Path) -> None:
    release = signed(release_store, edit, keys[0])
    private, public, _ = key_pair(tmp_path, "new")
    store = strict(release_store, Verifier(key=public))
    with pytest.raises(SignatureError, match="no signature that counts: Key mismatch"):
        channel.read_release(store, MODEL, release.version)
    first = sign_release(release_store, MODEL, release.version, Signer(private))
    assert sign_release(release_store, MODEL, release.version, Signer(private)) == first
    assert channel.read_release(store, MODEL, release.version)[0].version == release.version
    assert channel.read_release(strict(release_store, keys[1]), MODEL, release.version)[0].version == release.version


@pytest.mark.parametrize("junk", [b"", b"{}", b"\xff\x00", b"[]", b'{"mediaType": 1}', b'{"dsseEnvelope": {"signatures": []}}'])
def test_junk_in_a_signatures_place_is_no_crash(
        release_store: Store, edit: Made, keys: tuple[Signer, Verifier], junk: bytes) -> None:
    release = signed(release_store, edit, keys[0])
    tamper(release_store, sign_release(release_store, MODEL, release.version, keys[0]), junk)
    with pytest.raises(SignatureError, match="no signature that counts"):
        channel.read_release(strict(release_store, keys[1]), MODEL, release.version)


def test_a_certificate_of_the_authority_counts_and_another_does_not(release_store: Store, edit: Made, tmp_path: Path) -> None:
    _, _, root = key_pair(tmp_path, "root")
    authority = certificate(tmp_path, "authority", root, "authority", root, may_issue=True)
    private, _, key = key_pair(tmp_path, "release")
    own = certificate(tmp_path, "releases", key, "authority", root, may_issue=False)
    release = signed(release_store, edit, Signer(private, own))
    store = strict(release_store, Verifier(authorities=authority))
    assert channel.read_release(store, MODEL, release.version)[0].version == release.version
    stranger = certificate(tmp_path, "stranger", key, "stranger", key, may_issue=True)
    with pytest.raises(SignatureError, match="no signature that counts"):
        channel.read_release(strict(release_store, Verifier(authorities=stranger)), MODEL, release.version)
    with pytest.raises(ConfigError, match="cannot be used: The public key from the certificate does not match"):
        Signer(key_pair(tmp_path, "other")[0], own).sign(tmp_path, tmp_path / "signature")


def test_the_signature_covers_the_certificate_of_what_was_withdrawn(
        release_store: Store, edit: Made, keys: tuple[Signer, Verifier], tmp_path: Path) -> None:
    page = tmp_path / "certificate.html"
    page.write_text("<h1>withdrawn</h1>")
    with_page = replace(edit, dossier=replace(edit.dossier, artefacts={CERTIFICATE: page}))
    release = signed(release_store, with_page, keys[0])
    store = strict(release_store, keys[1])
    manifest, _ = channel.read_release(store, MODEL, release.version)
    signature = release_store.get_bytes(store.verified[release.manifest])[0]
    payload = json.loads(base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"]))
    assert [one["name"] for one in payload["predicate"]["resources"]] == ["certificate.html", "manifest.json"]
    tamper(release_store, f"blobs/sha256/{manifest.artefacts[CERTIFICATE].sha256}", b"<h1>nothing</h1>")
    with pytest.raises(IntegrityError, match="is damaged"):
        channel.read_release(strict(release_store, keys[1]), MODEL, release.version)


def test_a_key_that_others_may_read_signs_nothing(release_store: Store, edit: Made, keys: tuple[Signer, Verifier]) -> None:
    release = publish_edit(release_store, edit)
    os.chmod(keys[0].key, 0o644)
    with pytest.raises(ConfigError, match="can be read by others: its mode is 0644, expected 0600") as caught:
        sign_release(release_store, MODEL, release.version, keys[0])
    assert caught.value.hint == f"chmod 600 {keys[0].key}"
    with pytest.raises(ConfigError, match="cannot be read"):
        sign_release(release_store, MODEL, release.version, Signer(Path("/nowhere/key.pem")))


def test_a_key_of_another_kind_is_told(release_store: Store, edit: Made, tmp_path: Path) -> None:
    release = publish_edit(release_store, edit)
    path = tmp_path / "rsa.pem"
    path.touch(mode=0o600)
    path.write_bytes(rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    with pytest.raises(ConfigError, match=f"the signing key {path} cannot be used"):
        sign_release(release_store, MODEL, release.version, Signer(path))
    public = tmp_path / "no.pub"
    public.write_text("no key")
    sign_release(release_store, MODEL, release.version, Signer(key_pair(tmp_path, "sound")[0]))
    with pytest.raises(ConfigError, match=f"{public} cannot be used to check signatures"):
        channel.read_release(strict(release_store, Verifier(key=public)), MODEL, release.version)


def test_the_settings_name_signer_and_verifier(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SUTURE_")]:
        monkeypatch.delenv(name)
    assert (signer_of(Settings()), verifier_of(Settings())) == (None, None)
    monkeypatch.setenv("SUTURE_SIGNING_CERTIFICATE", "a.crt")
    with pytest.raises(ConfigError, match="SUTURE_SIGNING_CERTIFICATE is set without SUTURE_SIGNING_KEY"):
        signer_of(Settings())
    monkeypatch.setenv("SUTURE_SIGNING_KEY", "a.pem")
    monkeypatch.setenv("SUTURE_VERIFY_KEY", "a.pub")
    assert signer_of(Settings()) == Signer(Path("a.pem"), Path("a.crt"))
    assert verifier_of(Settings()) == Verifier(key=Path("a.pub"))
    monkeypatch.setenv("SUTURE_VERIFY_AUTHORITIES", "ca.crt")
    with pytest.raises(ConfigError, match="one of the two"):
        verifier_of(Settings())


def test_a_manifest_says_nothing_of_its_signature(release_store: Store, edit: Made, keys: tuple[Signer, Verifier]) -> None:
    release = signed(release_store, edit, keys[0])
    manifest, digest = channel.read_release(release_store, MODEL, release.version)
    assert digest == release.manifest
    assert "signature" not in json.dumps(json.loads(serialise(manifest)))
    assert isinstance(manifest, ReleaseManifest)
