"""Where one run keeps and finds things: the handles that every task gets, made once by the flow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from editors.contract import Progress, silent
from editors.digest import digest_document
from tasks.privacy_key import PrivacyKey
from tasks.signing import Signer
from tasks.stage import Workspace
from tasks.store import Store
from tasks.store_location import StoreLocation


@dataclass(frozen=True)
class House:
    """One Suture home on one machine, with the stores it talks to."""

    root: Path
    store: Store
    mlflow_uri: str
    user: str
    privacy_key: PrivacyKey
    """Seals forget requests; read only where there is one."""
    signer: Signer | None = None
    """Signs releases; None: they stay unsigned."""
    device: str = "auto"
    progress: Progress = silent
    watch_seconds: float = 0.0
    """How often the machine is sampled while an edit runs; 0: never."""

    @property
    def workspace(self) -> Workspace:
        """Finished stages."""
        return Workspace(self.root / "work")

    @property
    def cache(self) -> Path:
        """Converted models and fetched bases."""
        return self.root / "cache"

    @property
    def statistics(self) -> Path:
        """Second moments."""
        return self.cache / "statistics"

    @property
    def calibrations(self) -> Path:
        """What `suture calibrate` found, a file for each base."""
        return self.cache / "calibrations"

    @property
    def mlflow_artifacts(self) -> str | None:
        """Artifact root beside the embedded SQLite; None with a server, which has its own."""
        return (self.root / "mlflow" / "artifacts").as_uri() if self.mlflow_uri.startswith("sqlite:") else None


def model_folder(house: House, base_digest: str, patch_digests: tuple[str, ...]) -> Path:
    """Where a base under a stack of patches is kept as a folder."""
    return house.root / "work" / "models" / digest_document([base_digest, *patch_digests])[:32]


def store_at(url: str, house: House) -> Store:
    """The store at a URL, reached as the house's own is; past the embedded server, by boto3's own chain."""
    asked = StoreLocation.parse(url)
    own = house.store.location
    if own.may_create_bucket and asked.bucket != own.bucket:
        return Store(replace(asked, verifier=own.verifier))
    return Store(replace(own, bucket=asked.bucket, prefix=asked.prefix))
