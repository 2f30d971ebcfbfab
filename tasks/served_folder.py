"""The folder that a channel is served from: pulled once, and compared with its manifest each time before it is served."""

from __future__ import annotations

import shutil
from pathlib import Path

from editors.digest import digest_file
from tasks.house import House
from tasks.manifest import ReleaseManifest
from tasks.pull import pull


def served_folder(release: ReleaseManifest, house: House) -> Path:
    """A release as a plain Hugging Face folder of this home; one that was changed since is fetched again.

    Raises:
        IntegrityError: the store's files are not the release's.
        StoreError: the disk is too small, or the store failed.
    """
    folder = house.root / "serving" / f"{release.model}-{release.version}"
    if folder.exists() and not _is_intact(release, folder):
        shutil.rmtree(folder)
    if not folder.exists():
        pull(house.store, release, folder, progress=house.progress)
    return folder


def _is_intact(release: ReleaseManifest, folder: Path) -> bool:
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return found.keys() == release.files.keys() and all(
        digest_file(path) == release.files[name].sha256 for name, path in found.items())
