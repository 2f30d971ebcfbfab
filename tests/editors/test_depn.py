from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from editors.contract import EditBatch, Location, NeuronSet
from editors.depn import Depn, DepnConfig, Trial
from editors.errors import ConfigError, SheetError
from editors.forget_aim import Aim
from editors.forget_request import SealedForget
from editors.loading import Checkpoint, LoadedModel
from editors.locate.privacy_neurons import DetectorConfig
from editors.namesakes import invented_name, namesakes
from editors.neuron_factors import Fit
from editors.patch import Patch, Scale, applied, load_patch
from editors.prospect import prospect_of
from editors.secret_contrast import contrasts, one_place_values
from tests.editors.memorised import NAMES, batch_on, memorised, request_of, requests, secret_of
from tests.tiny import FAMILIES

Models = Callable[[str], LoadedModel]
OPTIONS = {"points": 2, "neurons": 192, "ratio": 1e-4, "rounds": 2, "steps": 12, "ordinary_texts": 4, "namesakes": 1,
           "max_drift": 10.0, "controls": 24}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("memorised")


@pytest.fixture(scope="module")
def models(folders: Path) -> Models:
    return lambda family: memorised(family, folders / family)


def everywhere(model: LoadedModel) -> Location:
    return Location(layers=tuple(range(model.anatomy.layer_count)), positions={}, source="calibration")


def planned(model: LoadedModel, statistics: Path, **options: object) -> Patch:
    return Depn.from_options({**OPTIONS, **options}).plan(model, batch_on(model), everywhere(model), statistics)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plan_hides_the_secrets_and_tells_how_far(models: Models, family: str, tmp_path: Path) -> None:
    model = models(family)
    aim = Aim(requests(), model.tokenizer, 24)
    before = aim.measure(model)
    patch = planned(model, tmp_path)
    told = patch.provenance["forgotten"]
    with applied(model.model, patch):
        after = aim.measure(model)
    assert all(reading.is_said for reading in before)
    assert not any(reading.is_said for reading in after)
    assert sum(r.excess for r in after) < sum(r.excess for r in before) / 2
    assert told["before"]["said"] == len(before)
    assert told["after"]["mean_exposure"] == pytest.approx(sum(r.exposure for r in after) / len(after), abs=1e-3)
    assert told["is_within_bound"]
    assert all(isinstance(edit, Scale) for edit in patch.edits)


def test_a_patch_comes_back_from_disk_and_holds_no_text(models: Models, tmp_path: Path) -> None:
    model = models("gpt2")
    patch = planned(model, tmp_path / "statistics")
    digest = patch.save(tmp_path / "patch")
    again = load_patch(tmp_path / "patch", digest)
    for edit, other in zip(patch.edits, again.edits, strict=True):
        assert isinstance(edit, Scale)
        assert isinstance(other, Scale)
        assert torch.equal(edit.factor, other.factor)
        assert torch.equal(edit.neurons, other.neurons)
        assert edit.axis == other.axis == 0, "a Conv1D has its value columns in rows"
    written = (tmp_path / "patch" / "patch.json").read_text() + repr(patch.provenance)
    ids = [str(list(row.ids[-4:]))[1:-1] for row in Aim(requests(), model.tokenizer, 1).rows]
    assert not any(piece in written for name in NAMES for piece in (*name.split(), "telephone", secret_of(name), *ids))


def test_neurons_of_the_location_are_those_scaled(models: Models, tmp_path: Path) -> None:
    model = models("llama")
    neurons = (NeuronSet(layer=1, indices=(5, 3, 60), scores=(3.0, 2.0, 1.0)),)
    location = Location(layers=(1,), positions={}, neurons=neurons, source="locator")
    patch = Depn.from_options({**OPTIONS, "steps": 1, "rounds": 1}).plan(model, batch_on(model), location, tmp_path)
    (edit,) = patch.edits
    assert isinstance(edit, Scale)
    assert edit.neurons.tolist() == [5, 3, 60]
    assert patch.provenance["forgotten"]["neurons"] == 3


def test_the_layers_of_the_location_bound_the_search(models: Models, tmp_path: Path) -> None:
    model = models("llama")
    location = Location(layers=(2,), positions={}, source="sheet")
    patch = Depn.from_options({**OPTIONS, "steps": 1, "rounds": 1}).plan(model, batch_on(model), location, tmp_path)
    assert patch.parameters == (model.anatomy.mlp_output_parameter(2),)


def test_what_drifts_too_far_is_weakened_until_it_is_within_the_bound(models: Models, tmp_path: Path) -> None:
    model = models("opt")
    free, bound = (planned(model, tmp_path, max_drift=most).provenance["forgotten"] for most in (10.0, 1.02))
    assert free["drift"] > 1.02, "the bound bites nowhere: no test"
    assert bound["is_within_bound"]
    assert bound["drift"] <= 1.02
    assert bound["after"]["mean_exposure"] >= free["after"]["mean_exposure"]


def test_within_the_bound_comes_before_hiding_more() -> None:
    def trial(drift: float) -> Trial:
        return Trial((), (), drift, Fit(torch.zeros(1), 0))

    assert max([trial(1.5), trial(1.01), trial(1.015)], key=lambda one: one.rank(DepnConfig())).drift == 1.01


def test_values_differ_from_the_secret_in_one_place(models: Models) -> None:
    values = one_place_values(request_of(NAMES[0]), 3)
    secret = secret_of(NAMES[0])
    assert len(values) == 12
    assert all(sum(a != b for a, b in zip(value, secret, strict=True)) == 1 for value in values)
    texts = contrasts(request_of(NAMES[0]), models("llama").tokenizer, 3)
    assert len(texts) == 2
    assert all(sum(text.weights) == pytest.approx(0) for text in texts)


def test_namesakes_are_the_same_twice_and_bear_no_name_of_the_sheet(models: Models) -> None:
    model, state = models("llama"), torch.random.get_rng_state()
    found, again = (namesakes(model, requests(), 2, 7) for _ in range(2))
    assert found == again
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(found) == 2 * 2 * 2
    said = [model.tokenizer.decode(text.tree.tokens) for text in found]
    assert not any(word in text for text in said for name in NAMES for word in name.split())
    assert len(invented_name(random.Random(0), 3).split()) == 3


def test_a_sealed_request_is_refused(models: Models, tmp_path: Path) -> None:
    model = models("llama")
    sealed = EditBatch(purpose="forget", base_digest="b", parent_digest="b", requests=(request_of(NAMES[0]).at_rest(),))
    assert isinstance(sealed.requests[0], SealedForget)
    with pytest.raises(SheetError, match="request 'person-0' holds no text to forget\n  next: run the edit from its sheet"):
        Depn().plan(model, sealed, everywhere(model), tmp_path)


def test_an_estimate_grows_with_what_is_asked(folders: Path, models: Models, tmp_path: Path) -> None:
    model = models("gpt2")
    ahead = prospect_of(Checkpoint(folders / "gpt2"), batch_on(model), (0, 1, 2), tmp_path, device="cpu")
    small, large = (Depn.from_options({"points": points}).estimate(ahead) for points in (2, 200))
    assert large.flops > small.flops > 0
    assert large.memory_bytes > 0
    assert repr(secret_of(NAMES[0])) not in repr(large)


@pytest.mark.parametrize(("option", "value"), [("rounds", 0), ("max_drift", 0.9), ("bits", 13), ("most_change", 0),
                                               ("points", 0)])
def test_an_option_outside_its_range_is_refused(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"depn\.{option} must be in .*got {value}"):
        DepnConfig.from_options({option: value})


def test_options_of_the_detector_are_flat() -> None:
    assert DepnConfig.from_options({"neurons": 7}).detector == DetectorConfig(neurons=7)
