"""A pull gives every byte of a release or nothing at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from editors.errors import ConfigError, IntegrityError, StoreError
from editors.loading import Checkpoint
from editors.patch import load_patch
from tasks import channel
from tasks.candidate import upload
from tasks.manifest import Contents, candidate_digest, release_key, serialise, version_of
from tasks.publish import rollback
from tasks.pull import pull
from tasks.store import Store, blob_key
from tests.tasks.release_line import ADA, CHANNEL, MODEL, Made, SmallDisk, make_edit, promote, stage, tamper, tree

pytestmark = pytest.mark.flow
SHARD = "model-layer-001.safetensors"


@pytest.fixture
def store(release_store: Store) -> Store:
    return release_store


@pytest.fixture
def edit(store: Store, tmp_path: Path) -> Made:
    return make_edit(tmp_path / "edit", 1)


@pytest.fixture
def release(store: Store, edit: Made) -> Contents:
    promote(store, edit)
    return channel.read(store, MODEL, CHANNEL).manifest


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Not there yet, in a folder that holds nothing else."""
    return tmp_path / "pulled" / "model"


def leftovers(target: Path) -> list[str]:
    return [path.name for path in target.parent.iterdir()]


def test_a_pull_is_the_baked_folder_byte_for_byte(store: Store, release: Contents, edit: Made, target: Path) -> None:
    pulled = pull(store, release, target)
    assert tree(target) == tree(edit.baked.folder)
    assert Checkpoint(target).digest == pulled.checkpoint == edit.baked.digest
    assert pulled.size_bytes == sum(len(content) for content in tree(target).values())
    assert leftovers(target) == ["model"]


def test_after_a_rollback_a_pull_gives_the_base(store: Store, release: Contents, target: Path, tmp_path: Path) -> None:
    rollback(store, MODEL, CHANNEL, ADA)
    pull(store, channel.read(store, MODEL, CHANNEL).manifest, target)
    assert tree(target) == tree(tmp_path / "base")


def test_an_empty_folder_is_taken_and_a_full_one_is_not(store: Store, release: Contents, target: Path) -> None:
    target.mkdir(parents=True)
    pull(store, release, target)
    with pytest.raises(ConfigError, match="is not empty: a pull never overwrites"):
        pull(store, release, target)
    (target.parent / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        pull(store, release, target.parent / "file")
    assert (target.parent / "file").read_text() == "mine"


def test_a_tampered_blob_is_named_and_leaves_nothing(store: Store, release: Contents, target: Path) -> None:
    blob = release.files[SHARD]
    tamper(store, blob_key(blob.sha256), b"\0" * blob.size_bytes)
    with pytest.raises(IntegrityError, match=rf"{SHARD}: .* expected sha256 {blob.sha256}, found [0-9a-f]{{64}}"):
        pull(store, release, target)
    assert leftovers(target) == []


def test_a_missing_blob_is_named_and_leaves_nothing(store: Store, release: Contents, target: Path) -> None:
    store.remove(blob_key(release.files["config.json"].sha256))
    with pytest.raises(IntegrityError, match=r"config\.json is not in the store: expected sha256"):
        pull(store, release, target)
    assert leftovers(target) == []


def test_a_wrong_size_is_named(store: Store, release: Contents, target: Path) -> None:
    wrong = release.files[SHARD].model_copy(update={"size_bytes": 7})
    forged = release.model_copy(update={"files": {**release.files, SHARD: wrong}})
    with pytest.raises(IntegrityError, match=rf"{SHARD} has {release.files[SHARD].size_bytes} bytes, expected 7"):
        pull(store, forged, target)
    assert leftovers(target) == []


def test_a_manifest_changed_together_with_its_blobs_is_seen(store: Store, release: Contents, edit: Made, target: Path) -> None:
    """By name no pointer pins the manifest: the version's own digest does."""
    shard = (edit.baked.folder / SHARD).read_bytes()
    receipt = store.put_blob(shard[:-4] + b"\0\0\0\0")
    document = json.loads(serialise(release))
    document["files"][SHARD]["sha256"] = receipt.digest
    tamper(store, release_key(MODEL, release.version), json.dumps(document).encode())
    with pytest.raises(IntegrityError, match=f"are not its checkpoint: expected {edit.baked.digest}, found"):
        pull(store, channel.read_version(store, MODEL, release.version), target)
    assert leftovers(target) == []


def test_another_version_under_this_name_is_seen(store: Store, release: Contents) -> None:
    other = candidate_digest(release.base.digest, release.patch_digests, "0" * 64)
    document = json.loads(serialise(release)) | {"checkpoint": "0" * 64, "digest": other, "version": version_of(other)}
    tamper(store, release_key(MODEL, release.version), json.dumps(document).encode())
    with pytest.raises(IntegrityError, match=f"describes tiny version {version_of(other)}"):
        channel.read_version(store, MODEL, release.version)


def test_a_refused_version_is_pulled_by_name(store: Store, target: Path, tmp_path: Path) -> None:
    refused = make_edit(tmp_path / "refused", 5, passed=False)
    candidate = stage(store, refused)
    with pytest.raises(IntegrityError, match="while it waits for approval, its weights may be there only"):
        pull(store, channel.read_version(store, MODEL, candidate.version), target)
    upload(store, candidate, refused.baked.folder)
    pull(store, channel.read_version(store, MODEL, candidate.version), target)
    assert tree(target) == tree(refused.baked.folder)
    assert not store.exists(release_key(MODEL, candidate.version))


def test_patches_alone_come_in_stack_order(store: Store, release: Contents, edit: Made, target: Path) -> None:
    second = make_edit(edit.baked.folder.parents[1] / "second", 2, release, edit.baked.folder)
    promote(store, second)
    manifest = channel.read(store, MODEL, CHANNEL).manifest
    pull(store, manifest, target, what="patch")
    digests = manifest.patch_digests
    folders = sorted(target.iterdir())
    assert [folder.name for folder in folders] == [f"00-{digests[0][:12]}", f"01-{digests[1][:12]}"]
    loaded = [load_patch(folder, digest) for folder, digest in zip(folders, digests, strict=True)]
    assert [patch.provenance["seed"] for patch in loaded] == [1, 2]


def test_a_pull_that_does_not_fit_is_refused_before_it_begins(store: Store, release: Contents, small_disk: SmallDisk) -> None:
    shard = release.files[SHARD].model_copy(update={"size_bytes": 2**25})
    large = release.model_copy(update={"files": {**release.files, SHARD: shard}})
    with pytest.raises(StoreError, match=r"bytes free, the pull needs 3\d{7}") as caught:
        pull(store, large, small_disk.folder / "model")
    assert "free some space" in caught.value.hint
    assert list(small_disk.folder.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(store: Store, release: Contents, small_disk: SmallDisk) -> None:
    """The six files have 2 kB, but each takes a page of 4 kB: the check before the pull cannot see that it will not fit."""
    ballast = small_disk.folder / "ballast"
    ballast.write_bytes(b"\0" * (shutil.disk_usage(small_disk.folder).free - 3 * 4096))
    with pytest.raises(StoreError, match="No space left on device") as caught:
        pull(store, release, small_disk.folder / "model")
    assert "free some space" in caught.value.hint
    assert list(small_disk.folder.iterdir()) == [ballast]


def test_a_mount_point_cannot_be_replaced_and_is_left_empty(store: Store, release: Contents, small_disk: SmallDisk) -> None:
    with pytest.raises(ConfigError, match="cannot be written") as caught:
        pull(store, release, small_disk.folder)
    assert "no mount point" in caught.value.hint
    assert list(small_disk.folder.iterdir()) == []
    assert not list(small_disk.folder.parent.glob(".*partial"))


def test_a_folder_that_may_not_be_made_is_refused(store: Store, release: Contents, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        pull(store, release, tmp_path / "file" / "model")


def test_a_killed_pull_does_not_stand_in_the_way(store: Store, release: Contents, edit: Made, target: Path) -> None:
    shutil.copytree(edit.baked.folder, target.parent / ".model.0123456789ab.partial")
    pull(store, release, target)
    assert tree(target) == tree(edit.baked.folder)
