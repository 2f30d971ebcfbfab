"""What rotted at home is never used: it is made again where it can be, and named where it cannot."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from editors.bake import bake, is_whole
from editors.corpus import corpus_file, default_corpus, held_corpus, write_rows
from editors.errors import IntegrityError
from editors.loading import INDEX, Checkpoint, load
from editors.moments import Corpus, held_moments, moment_files
from tasks.house import House
from tasks.intake import find_base, materialise
from tasks.privacy_key import PrivacyKey
from tests.tasks.registry import random_patch
from tests.tiny import tiny_folder


@dataclass(frozen=True)
class Home:
    house: House
    source: Path
    patch: Path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("base") / "tiny", layers=2)


@pytest.fixture
def home(source: Path, tmp_path: Path) -> Home:
    key = PrivacyKey(None, tmp_path / "key", may_create=False)
    house = House(root=tmp_path, store=None, mlflow_uri="", user="tester", privacy_key=key)
    patch = random_patch(find_base(str(source), house), seed=1)
    patch.save(tmp_path / "patch")
    return Home(house, source, tmp_path / "patch")


def turn(path: Path, place: int) -> None:
    body = bytearray(path.read_bytes())
    body[place] ^= 1
    path.write_bytes(bytes(body))


@pytest.mark.parametrize(("name", "place"), [
    ("model-layer-000.safetensors", -1), ("model-rest.safetensors", 0), ("config.json", 3), (INDEX, 0), (INDEX, -10),
    ("tokenizer.json", 40), (INDEX, 40)])
def test_a_base_that_rotted_is_baked_again(home: Home, name: str, place: int) -> None:
    whole = find_base(str(home.source), home.house)
    digest, body = whole.digest, (whole.folder / name).read_bytes()
    turn(whole.folder / name, place)
    assert not is_whole(Checkpoint(whole.folder), digest)
    again = find_base(str(home.source), home.house)
    assert (again.folder, again.digest) == (whole.folder, digest)
    assert (again.folder / name).read_bytes() == body


@pytest.mark.parametrize("name", ["model-layer-001.safetensors", "model-rest.safetensors", INDEX])
def test_a_parent_that_rotted_is_baked_again(home: Home, name: str, tmp_path: Path) -> None:
    """The shard that no edit touched is one file for the base and its edits: all of them rot at once."""
    from editors.patch import load_patch

    base = find_base(str(home.source), home.house)
    expected = bake(base, [load_patch(home.patch)], tmp_path / "expected").digest
    made = materialise(base, (home.patch,), home.house, expected)
    turn(made.folder / name, -10)
    again = materialise(find_base(str(home.source), home.house), (home.patch,), home.house, expected)
    assert is_whole(again, expected)


@pytest.mark.parametrize("index", [b"{", b"[]", b'{"weight_map": {"a": "../b"}}', b'{"weight_map": 7}', b"\xff", b"{}"])
def test_an_index_that_cannot_be_read_is_named(source: Path, tmp_path: Path, index: bytes) -> None:
    folder = bake(Checkpoint(source), (), tmp_path / "model").folder
    (folder / INDEX).write_bytes(index)
    with pytest.raises(IntegrityError, match=r"model\.safetensors\.index\.json (cannot be read|names shards)"):
        _ = Checkpoint(folder).digest
    assert not Checkpoint(folder).has_digest("a" * 64)


def test_an_index_that_promises_too_much_is_named(source: Path, tmp_path: Path) -> None:
    folder = bake(Checkpoint(source), (), tmp_path / "model").folder
    text = (folder / INDEX).read_text()
    (folder / INDEX).write_text(text.replace("model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.dowm_proj.weight"))
    with pytest.raises(IntegrityError, match=r"does not hold model\.layers\.0\.mlp\.dowm_proj\.weight, though"):
        _ = Checkpoint(folder).digest


def test_own_text_that_rotted_is_named(source: Path, tmp_path: Path) -> None:
    shapes = Checkpoint(source).anatomy
    path = corpus_file(shapes, "a" * 64, tmp_path)
    rows = [[1, 2, 3], [4, 5]]
    write_rows(path, rows)
    written = path.read_bytes()
    for place in range(len(written)):
        turn(path, place)
        with pytest.raises(IntegrityError, match=str(path)) as caught:
            held_corpus(shapes, "a" * 64, tmp_path)
        assert caught.value.hint == f"rm {path}"
        path.write_bytes(written)
    path.write_text(json.dumps(rows))
    assert held_corpus(shapes, "a" * 64, tmp_path) == Corpus("own-text", ((1, 2, 3), (4, 5))), "as older versions wrote it"


@pytest.mark.parametrize("content", ["", "../x", "a/b", "\0", "f" * 64 + ".safetensors"])
def test_a_pointer_to_a_moment_that_rotted_is_made_again(source: Path, tmp_path: Path, content: str) -> None:
    model = load(Checkpoint(source))
    corpus = Corpus("text", ((5, 6, 7),))
    expected = moment_files(model, [0], corpus, tmp_path, base_digest=model.digest)
    pointer = next(tmp_path.glob("base-*.txt"))
    pointer.write_text(content)
    assert held_moments(model.digest, [0], corpus, str(model.model.dtype), tmp_path) == {}
    assert moment_files(model, [0], corpus, tmp_path, base_digest=model.digest) == expected
    assert pointer.read_text() == expected[0].name


def test_a_text_made_now_is_kept_with_its_digest(source: Path, tmp_path: Path) -> None:
    model = load(Checkpoint(source))
    made = default_corpus(model, "a" * 64, tmp_path)
    assert held_corpus(model.anatomy, "a" * 64, tmp_path) == made
    assert json.loads(corpus_file(model.anatomy, "a" * 64, tmp_path).read_text()).keys() == {"sha256", "rows"}
