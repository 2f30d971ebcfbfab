"""Warming: fills the very store that edits read, says what it made, and does nothing the second time."""

from __future__ import annotations

from pathlib import Path

import pytest

from editors.errors import ConfigError
from editors.loading import Checkpoint, load
from editors.memit import Memit, MemitConfig
from tasks.house import House
from tasks.privacy_key import PrivacyKey
from tasks.store import Store
from tasks.store_location import StoreLocation
from tasks.warm import layers_of, warm
from tests.editors.plans import TOWER, at, batch_of
from tests.tiny import tiny_folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_folder(tmp_path_factory.mktemp("base") / "tiny", layers=4))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(root=tmp_path / "home", store=Store(StoreLocation("unused")), mlflow_uri="", user="tester",
                 privacy_key=PrivacyKey(None, tmp_path / "privacy.key"))


def test_everything_is_made_once(base: str, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    first = warm(base, "1-2", house)
    assert [(item.what, item.layer) for item in first.items] == [
        ("own text", None), ("second moment", 1), ("second moment", 2), ("factor", 1), ("factor", 2),
        ("spectrum", 1), ("spectrum", 2)]
    assert all(item.made and item.size_bytes == item.path.stat().st_size > 0 for item in first.items)
    assert all(item.path.parent == house.statistics for item in first.items)
    written = {path: path.stat().st_mtime_ns for path in house.statistics.iterdir()}
    monkeypatch.setattr("tasks.warm.load", lambda *_: pytest.fail("the model was loaded again"))
    second = warm(base, "1-2", house)
    assert not any(item.made for item in second.items)
    assert [item.path for item in second.items] == [item.path for item in first.items]
    assert {path: path.stat().st_mtime_ns for path in house.statistics.iterdir()} == written


def test_only_what_is_missing_is_made(base: str, house: House) -> None:
    first = warm(base, "1", house)
    next(item.path for item in first.items if item.what == "factor").unlink()
    more = warm(base, "1,3", house)
    assert {(item.what, item.layer) for item in more.items if item.made} == {
        ("factor", 1), ("second moment", 3), ("factor", 3), ("spectrum", 3)}


def test_only_the_layers_of_alphaedit_get_a_spectrum(base: str, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """One costs as much as fifteen factors."""
    monkeypatch.setattr("tasks.warm._layers_by_default", lambda method, *_: {2} if method == "alphaedit" else {1})
    assert [item.layer for item in warm(base, "1-2", house).items if item.what == "spectrum"] == [2]


def test_an_edit_finds_the_statistics_that_warming_made(base: str, house: House) -> None:
    warm(base, None, house)
    model = load(Checkpoint(Path(base)))
    said: list[str] = []
    before = sorted(house.statistics.iterdir())
    Memit(MemitConfig(contexts=0)).plan(model, batch_of(model, TOWER), at(0, 1), house.statistics,
                                        lambda what, _done, _total: said.append(what))
    assert {"own text", "second moments", "factors"}.isdisjoint(said)
    assert sorted(house.statistics.iterdir()) == before


def test_progress_is_told(base: str, house: House) -> None:
    said: dict[str, tuple[int, int]] = {}
    told = House(root=house.root, store=house.store, mlflow_uri="", user="tester", privacy_key=house.privacy_key,
                 progress=lambda what, done, total: said.update({what: (done, total)}))
    warm(base, "0", told)
    assert list(said) == ["own text", "second moments", "factors", "spectra"]
    assert all(done == total > 0 for done, total in said.values())


@pytest.mark.parametrize(("text", "expected"), [("all", (0, 1, 2, 3)), ("2", (2,)), ("3, 0-1,1", (0, 1, 3))])
def test_layers_are_read(text: str, expected: tuple[int, ...]) -> None:
    assert layers_of(text, 4) == expected


@pytest.mark.parametrize("text", ["4", "2-1", "0-4", "-1", "top", "", "1,,2"])
def test_a_layer_that_is_not_the_models_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not among the layers 0 to 3 of this model") as refused:
        layers_of(text, 4)
    assert refused.value.hint == "--layers 0-3, or --layers all"
