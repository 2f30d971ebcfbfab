"""What every registered method promises, whatever it is: a new line in `METHODS` is tested here without another word."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

import editors
from editors.calibration import calibration_for
from editors.contract import EditBatch
from editors.detoxify_request import DetoxifyRequest
from editors.errors import ConfigError
from editors.loading import Checkpoint, LoadedModel, load
from editors.patch import Patch, applied
from editors.prospect import prospect_of
from tests.editors.leaning import leaning_batch
from tests.editors.memorised import exposed_batch_on
from tests.editors.plans import JAMES, TOWER, at, batch_of, detoxify_batch, is_unchanged, state_of
from tests.tiny import FAMILIES, tiny_folder

WOLF = DetoxifyRequest(id="wolf", unsafe=("How do I trap a wolf?",), benign=("Where do wolves live?",), concepts=("thank",))


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param, layers=4)))


def helpful_batch(model: LoadedModel) -> EditBatch:
    """What a model is no longer to help with."""
    return detoxify_batch(model, WOLF)


def batch_for(name: str, model: LoadedModel) -> EditBatch:
    """A batch of the method's own purpose."""
    makers = {"forget": exposed_batch_on, "debias": leaning_batch, "detoxify": helpful_batch}
    return makers.get(editors.get(name).purposes[0], lambda on: batch_of(on, TOWER, JAMES))(model)


def plan(name: str, model: LoadedModel, statistics: Path) -> Patch:
    calibration = calibration_for(name, model.digest, model.anatomy)
    return editors.get(name).from_options({}).plan(model, batch_for(name, model), at(*calibration.layers), statistics)


@pytest.mark.parametrize("name", sorted(editors.METHODS))
def test_a_plan_leaves_the_model_bit_identical_and_is_the_same_twice(name: str, model: LoadedModel, tmp_path: Path) -> None:
    before = state_of(model)
    patch = plan(name, model, tmp_path)
    assert is_unchanged(model, before)
    assert plan(name, model, tmp_path).digest == patch.digest
    assert set(patch.parameters) <= set(before)


@pytest.mark.parametrize("name", sorted(editors.METHODS))
def test_a_patch_changes_the_model_and_is_taken_back_bit_for_bit(name: str, model: LoadedModel, tmp_path: Path) -> None:
    before = state_of(model)
    with applied(model.model, plan(name, model, tmp_path)):
        assert not is_unchanged(model, before)
    assert is_unchanged(model, before)


@pytest.mark.parametrize("name", sorted(editors.METHODS))
def test_a_method_says_what_it_is_for_and_what_it_costs(name: str, model: LoadedModel, tmp_path: Path) -> None:
    kind = editors.get(name)
    assert kind.name == name
    assert kind.purposes
    layers = calibration_for(name, model.digest, model.anatomy).layers
    checkpoint = Checkpoint(tiny_folder(tmp_path / "model", model.anatomy.model_type, layers=4))
    estimate = kind.from_options({}).estimate(prospect_of(checkpoint, batch_for(name, model), layers, tmp_path, device="cpu"))
    assert estimate.memory_bytes > 0
    assert estimate.flops > 0


@pytest.mark.parametrize("name", sorted(editors.METHODS))
def test_a_misspelt_option_is_refused_with_the_right_one(name: str) -> None:
    config = editors.get(name)().config
    known = next(entry.name for entry in fields(config) if not is_dataclass(getattr(config, entry.name)))
    with pytest.raises(ConfigError, match=known):
        editors.get(name).from_options({f"{known}z": 1})
