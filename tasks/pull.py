"""From the store to a folder: every byte verified, and the folder appears whole or not at all.

A version pulled by name is checked against the name itself: the folder's checkpoint digest must be the one that the
version's digest covers, so a manifest and its blobs cannot be exchanged together.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from editors.contract import Frozen, Progress, silent
from editors.errors import ConfigError, IntegrityError, NotFound, StoreError
from editors.loading import Checkpoint
from tasks.manifest import Blob, Contents
from tasks.store import Store

DOWNLOADS_AT_ONCE = 4


class Pulled(Frozen):
    """A folder that was pulled: a plain Hugging Face folder, or the stack of patches."""

    folder: Path
    model: str
    version: str
    digest: str
    checkpoint: str
    files: Mapping[str, Blob]

    @property
    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(blob.size_bytes for blob in self.files.values())


def pull(store: Store, contents: Contents, folder: Path, what: Literal["model", "patch"] = "model",
         progress: Progress = silent) -> Pulled:
    """Bring a version, as `channel.read` or `channel.read_version` gives it, into a new or empty folder.

    It is the whole model for `from_pretrained`, or the patches alone: `00-<digest>/patch.json` and `patch.safetensors`,
    numbered in stack order.

    Raises:
        ConfigError: the folder is not empty, or cannot be replaced.
        IntegrityError: a file is gone, has another digest or size, or the whole is not the version's checkpoint.
        StoreError: the disk is too small, or the store failed.
    """
    files = dict(contents.files) if what == "model" else stack_files(contents)
    _check_target(folder, sum(blob.size_bytes for blob in files.values()))
    with _appearing(folder) as partial:
        with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            arriving = pool.map(lambda name: _fetch(store, name, files[name], partial), sorted(files))
            for number, _ in enumerate(arriving, start=1):
                progress("pulling", number, len(files))
        if what == "model":
            _check_checkpoint(contents, partial)
    return Pulled(folder=folder, model=contents.model, version=contents.version, digest=contents.digest,
                  checkpoint=contents.checkpoint, files=files)


def stack_files(contents: Contents) -> dict[str, Blob]:
    """Relative path -> blob for the patches of a version, numbered in stack order."""
    folders = ((f"{number:02d}-{entry.digest[:12]}", entry) for number, entry in enumerate(contents.stack))
    return {f"{folder}/{name}": blob for folder, entry in folders
            for name, blob in (("patch.json", entry.document), ("patch.safetensors", entry.tensors))}


def _check_target(folder: Path, needed_bytes: int) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty: a pull never overwrites", f"give a new folder: {folder}-2")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder.parent).free
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error}", "give a folder that you may write to") from error
    if free < needed_bytes:
        raise StoreError(f"{folder.parent} has {free} bytes free, the pull needs {needed_bytes}",
                         "free some space, or give a folder on another disk")


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A scratch folder beside `folder` that takes its name when the block ends well, and vanishes when it does not."""
    partial = folder.parent / f".{folder.name}.{secrets.token_hex(6)}.partial"
    try:
        partial.mkdir()
        yield partial
        os.rename(partial, folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StoreError(f"{folder}: the disk is full: {error}", "free some space, or give another folder") from error
        raise ConfigError(f"{folder} cannot be written: {error}", "give a new folder that is no mount point") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fetch(store: Store, name: str, blob: Blob, folder: Path) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        store.get_blob(blob.sha256, path)
    except NotFound as error:
        raise IntegrityError(f"{name} is not in the store: expected sha256 {blob.sha256}",
                             "publish the version again where it was made; while it waits for approval, its weights "
                             "may be there only") from error
    except IntegrityError as error:
        raise IntegrityError(f"{name}: {error.message}", error.hint) from error
    if (size := path.stat().st_size) != blob.size_bytes:
        raise IntegrityError(f"{name} has {size} bytes, expected {blob.size_bytes}",
                             "the manifest was changed: restore it from a backup")


def _check_checkpoint(contents: Contents, folder: Path) -> None:
    found = Checkpoint(folder).digest
    if found != contents.checkpoint:
        raise IntegrityError(f"the files of version {contents.version} are not its checkpoint: expected "
                             f"{contents.checkpoint}, found {found}", "the manifest was changed: restore it from a backup")
