"""Every form of `base` leads to a folder, or to an error that says what to type."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from editors.errors import ArchitectureError, BaseNotFound, IntegrityError
from editors.loading import Checkpoint, load
from tasks.base import local_base
from tests.tiny import tiny_folder


def test_a_folder_is_a_base(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    assert local_base(str(folder), tmp_path).digest == Checkpoint(folder).digest


def test_a_hub_id_is_served_from_the_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    commit = "a" * 40
    repository = tmp_path / "hub" / "models--org--tiny"
    shutil.copytree(tiny_folder(tmp_path / "tiny"), repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    found = local_base("org/tiny", tmp_path)
    assert found.folder.name == commit
    assert local_base(f"org/tiny@{commit}", tmp_path).digest == found.digest


@pytest.mark.parametrize(("reference", "words"), [
    ("smollm2-135m-instruc", "base: smollm2-135m-instruct"),
    ("./nowhere", "does not exist"),
    ("org/nothing-there", "org/nothing-there"),
])
def test_a_base_that_is_not_there_says_what_to_do(reference: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(BaseNotFound, match=re.escape(words)):
        local_base(reference, tmp_path)


def test_an_unknown_architecture_names_the_entry_to_add(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"mamba"'))
    with pytest.raises(ArchitectureError, match=r"(?s)'mamba' is unknown.*architectures\.json"):
        load(Checkpoint(folder))


def test_a_corrupt_shard_is_an_integrity_error(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    shard = next(folder.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(IntegrityError, match="not a valid safetensors file"):
        load(Checkpoint(folder))


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    for shard in folder.glob("*.safetensors"):
        shard.rename(shard.with_suffix(".bin"))
    with pytest.raises(BaseNotFound, match=r"holds no \.safetensors file"):
        load(Checkpoint(folder))
