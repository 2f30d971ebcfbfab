"""One bucket for all tests of releases, a prefix for each: connecting and making a bucket take longer than the tests."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.s3_server import S3Endpoint
from tasks.store import Store
from tests.tasks.release_line import SmallDisk, same_connection, write_base


@pytest.fixture(scope="session")
def connected_store(s3_http: S3Endpoint) -> Store:
    store = Store(s3_http.location("releases"))
    store.ensure_bucket()
    store.probe_conditional_writes()
    return store


@pytest.fixture
def release_store(connected_store: Store, tmp_path: Path) -> Store:
    """An empty store under a prefix of its own; the tiny base lies at `tmp_path / "base"`."""
    write_base(tmp_path / "base")
    return same_connection(Store(replace(connected_store.location, prefix=uuid.uuid4().hex)), connected_store)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A real file system that fills up; only root may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)
