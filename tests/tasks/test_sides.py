"""Which versions are looked at together: by name, by channel, and never on two bases."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from editors.errors import BaseNotFound, ConfigError, NotFound
from editors.loading import Checkpoint
from flows.sides import base_under, served_by, sides_of
from tasks.house import House
from tasks.privacy_key import PrivacyKey
from tasks.store import Store
from tests.tasks.release_line import line_of, make_edit, promote, stage, write_base


@pytest.fixture
def house(release_store: Store, tmp_path: Path) -> House:
    home = tmp_path / "home"
    return House(root=home, store=release_store, mlflow_uri="", user="ann", privacy_key=PrivacyKey(None, home / "privacy.key"))


def test_versions_by_their_beginnings_and_the_base_beneath_them(house: House, tmp_path: Path) -> None:
    base, first, second = line_of(house.store, tmp_path, 2)
    sides = sides_of([second[:7], "base", first], house)
    assert [side.version for side in sides] == [second, base, first]
    assert [side.title for side in sides] == [second, "base", first]
    assert [len(side.patches) for side in sides] == [2, 0, 1]
    assert sides[0].patches[0] == sides[2].patches[0]
    assert (sides[0].patches[1] / "patch.safetensors").exists()
    assert served_by("demo", None, house) == served_by(None, None, house) == second
    # the sheet's reference leads nowhere on this machine, the published base does
    assert base_under(sides[0], house).digest == Checkpoint(tmp_path / "base").digest


def test_unknown_versions_and_missing_channels_are_named(house: House, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no channel in s3://"):
        served_by(None, None, house)
    line_of(house.store, tmp_path, 1)
    with pytest.raises(NotFound, match="no version 'ffffffff'"):
        sides_of(["base", "ffffffff"], house)
    with pytest.raises(NotFound, match="no channel 'stable'"):
        served_by("stable", None, house)
    with pytest.raises(ConfigError, match="names what another version stands on"):
        sides_of(["base"], house)


def test_versions_of_two_bases_are_not_looked_at_together(house: House, tmp_path: Path) -> None:
    promote(house.store, made := make_edit(tmp_path / "edit", 1))
    write_base(tmp_path / "other" / "base")
    (tmp_path / "other" / "base" / "tokenizer.json").write_text('{"version": "2.0"}')
    stranger = stage(house.store, make_edit(tmp_path / "other" / "edit", 2))
    with pytest.raises(ConfigError, match=rf"version {stranger.version} stands on the base tiny-base .* on tiny-base"):
        sides_of([stranger.version, served_by("demo", None, house)], house)
    # not published, and its reference leads nowhere
    shutil.rmtree(made.baked.folder)
    with pytest.raises(BaseNotFound, match="tiny-base"):
        base_under(sides_of([stranger.version], house)[0], house)
