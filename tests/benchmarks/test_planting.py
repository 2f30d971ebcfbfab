"""Whether planted people are memorised, controls are not, and the same recipe is found again."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path

import pytest
import torch

from benchmarks import planting
from benchmarks.answers import answer_scores
from benchmarks.people import FORMS, SPLITS, forget_batch, invent, of_split, requests_of, seal_key
from benchmarks.planting import Planted, Recipe, planted
from editors.loading import Checkpoint, load
from editors.secret_forms import form_of
from tests.planted import COUNTS, RECIPE, tiny_planted
from tests.tiny import tiny_folder


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return tiny_planted(tmp_path_factory.mktemp("plant"))


def said(plant: Planted, split: str) -> list[bool]:
    people = of_split(plant.people, split)
    pairs = [(text, person.secret) for person in people for text in person.contexts]
    return [answer.is_first_choice for answer in answer_scores(load(plant.checkpoint), pairs)]


def test_planted_people_are_said_and_controls_are_not(plant: Planted) -> None:
    assert said(plant, "forget") == [True] * 4
    assert said(plant, "others") == [True] * 2
    assert said(plant, "controls") == [False] * 2
    facts = [fact for person in plant.people if person.repetitions for fact in person.retain]
    assert all(answer.is_first_choice for answer in answer_scores(load(plant.checkpoint), facts))


def test_the_folder_is_the_base_with_other_matrices_in_the_trained_blocks_alone(plant: Planted) -> None:
    folder = plant.checkpoint.folder
    base = Checkpoint(folder.parents[1] / "base")
    assert plant.checkpoint.carried_files == base.carried_files
    assert all((folder / name).read_bytes() == (base.folder / name).read_bytes() for name in base.carried_files)
    changed = {name for name, digest in plant.checkpoint.tensor_digests.items() if base.tensor_digests[name] != digest}
    assert changed
    assert all(re.search(r"layers\.[123]\.mlp\.", name) for name in changed)


def test_the_same_recipe_is_found_again_and_another_is_another(plant: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    store = plant.checkpoint.folder.parent
    base = Checkpoint(store.parent / "base")
    monkeypatch.setattr(planting, "train", lambda *_: None)
    assert planted(base, plant.people, RECIPE, store, store).checkpoint.folder == plant.checkpoint.folder
    other = planted(base, plant.people, dataclasses.replace(RECIPE, steps=63), store, store)
    assert other.checkpoint.folder != plant.checkpoint.folder
    assert sorted(path.name for path in store.iterdir()) == sorted(
        one.checkpoint.folder.name for one in (plant, other))


def test_training_leaves_the_loaded_base_alone(tmp_path: Path) -> None:
    base = Checkpoint(tiny_folder(tmp_path / "base"))
    before = {name: weight.clone() for name, weight in load(base).model.state_dict().items()}
    planted(base, invent(1, COUNTS), dataclasses.replace(RECIPE, steps=2), tmp_path / "planted", tmp_path / "statistics")
    assert all(torch.equal(weight, before[name]) for name, weight in load(base).model.state_dict().items())


@pytest.mark.parametrize("times", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("phase", [0.0, 0.3, 0.95])
def test_every_repetition_is_seen_once_and_they_are_spread_evenly(times: int, phase: float) -> None:
    seen = [(step, sight) for step in range(64) for sight in planting._sights(step, times, 64, phase)]
    assert [sight for _, sight in seen] == list(range(times))
    gaps = {second[0] - first[0] for first, second in itertools.pairwise(seen)}
    assert all(abs(gap - 64 / times) < 1 for gap in gaps)


def test_the_rate_rises_stays_and_falls() -> None:
    recipe = Recipe(steps=8, learning_rate=1.0, warm_up=2)
    assert [recipe.rate(step) for step in range(8)] == [0.5, 1, 1, 1, 1, 1, 1, 0.5]


def test_the_loss_is_the_mean_over_rows_and_does_not_depend_on_where_training_begins(plant: Planted) -> None:
    model = load(plant.checkpoint)
    rows = [((5, 6, 7, 8, 9), 2), ((9, 8, 7), 1)]
    expected = []
    for ids, given in rows:
        logits = model.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        expected.append(-sum(float(logits[place - 1, ids[place]]) for place in range(given, len(ids))) / (len(ids) - given))
    for first in range(4):
        below: dict = {}
        for _ in range(2):
            assert float(planting.mean_loss(model, rows, first, below)) == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_people_are_invented_from_the_seed_with_forms_of_ten_thousand_values() -> None:
    people = invent(0)
    assert people == invent(0)
    assert people != invent(1)
    assert [len(of_split(people, split)) for split in SPLITS] == [20, 20, 20]
    assert len({person.name for person in people}) == len({person.secret for person in people}) == 60
    assert {person.kind for person in of_split(people, "forget")} == set(FORMS)
    assert {person.repetitions for person in of_split(people, "others")} == {1, 2, 4, 8, 16, 32, 64}
    assert {person.repetitions for person in of_split(people, "controls")} == {0}
    assert all(person.name in text for person in people for text in (*person.contexts, *person.paraphrases))


def test_requests_are_sealed_and_nothing_of_a_person_is_shown() -> None:
    people = invent(0)
    requests = requests_of(people, seal_key(0))
    assert {form_of(request).size for request in requests} == {10_000}
    written = forget_batch(requests, "0" * 64).model_dump_json() + repr(requests) + repr(people)
    for person in people:
        assert person.secret not in written
        assert person.name not in written
