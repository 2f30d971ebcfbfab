from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from editors.errors import ConfigError, IntegrityError
from editors.forget_aim import Aim
from editors.inner_scale import slopes
from editors.loading import LoadedModel
from editors.locate.privacy_neurons import DetectorConfig, attributions, detect, elect
from editors.patch import Patch, Scale, applied
from editors.secret_contrast import one_place_values, with_owners
from editors.secret_rows import SecretRow, row_of, secret_rows
from tests.editors.memorised import NAMES, memorised, request_of, requests, secret_of
from tests.tiny import FAMILIES

Models = Callable[[str], LoadedModel]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("memorised")
    return lambda family: memorised(family, folder / family)


class Slow:
    """The plain way: a whole run and its backward for every layer, point, value and token; hooks on one row of tokens."""

    def __init__(self, model: LoadedModel, config: DetectorConfig) -> None:
        self.model, self.config = model, config

    def attribution(self, ids: tuple[int, ...], first: int, layer: int) -> torch.Tensor:
        """(F,) of the tokens from `first` on: the mean gradient along the path, times its length."""
        places, weights = np.polynomial.legendre.leggauss(self.config.points)
        width, total = 1 - self.config.baseline, torch.zeros(self.model.anatomy.inner_size, dtype=torch.float64)
        for place, weight in zip(places, weights, strict=True):
            for token in range(first, len(ids)):
                slope = self._slope(ids, layer, self.config.baseline + width * (place + 1) / 2, token)
                total += slope.double() * weight * width / 2
        return total

    def contrast(self, row: SecretRow, others: list[SecretRow], layer: int) -> torch.Tensor:
        """(F,) of the secret's token minus the mean of the others', wherever one of them parts from the secret."""
        partings = [next(place for place in range(row.prompt_length, len(row.ids)) if row.ids[place] != other.ids[place])
                    for other in others]
        total = torch.zeros(self.model.anatomy.inner_size, dtype=torch.float64)
        for parting in sorted(dict.fromkeys(partings)):
            here = [other.ids[:parting + 1] for other, place in zip(others, partings, strict=True) if place == parting]
            total += self.attribution(row.ids[:parting + 1], parting, layer)
            total -= sum(self.attribution(ids, parting, layer) for ids in here) / len(here)
        return total

    def _slope(self, ids: tuple[int, ...], layer: int, at: float, token: int) -> torch.Tensor:
        factor = torch.full((self.model.anatomy.inner_size,), at, requires_grad=True)

        def hook_of(own: bool):
            def hook(_, arguments):
                return (arguments[0] * (factor if own else at),)
            return hook

        anatomy = self.model.anatomy
        handles = [self.model.model.get_submodule(anatomy.mlp_output_path(each)).register_forward_pre_hook(
            hook_of(each == layer)) for each in range(anatomy.layer_count)]
        logits = self.model.model(torch.tensor([ids])).logits[0, token - 1]
        (slope,) = torch.autograd.grad(logits.log_softmax(-1)[ids[token]], factor)
        for handle in handles:
            handle.remove()
        return slope


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_a_run_for_every_layer_point_and_token(models: Models, family: str) -> None:
    model, asked = models(family), requests()[0]
    config = DetectorConfig(points=3, baseline=0.25, contrast=1)
    found = attributions(model, with_owners([asked], model.tokenizer, 1)[0], config)
    alone = attributions(model, with_owners([asked], model.tokenizer, 0)[0], config)
    slow, row, text = Slow(model, config), secret_rows(asked, model.tokenizer)[1], asked.context[1].get_secret_value()
    others = [row_of(asked, model.tokenizer, "context", 1, text, value) for value in one_place_values(asked, 1)]
    for layer in range(model.anatomy.layer_count):
        assert torch.allclose(found[1, layer].double(), slow.contrast(row, others, layer), atol=1e-4, rtol=1e-3)
        assert torch.allclose(alone[1, layer].double(), slow.attribution(row.ids, row.prompt_length, layer),
                              atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("baseline", "contrast"), [(0.0, 0), (0.0, 8), (0.7, 8)])
def test_attributions_sum_up_to_what_the_path_gains(models: Models, family: str, baseline: float, contrast: int) -> None:
    model, shape = models(family), (3, 64)
    config = DetectorConfig(baseline=baseline, contrast=contrast)
    texts, _ = with_owners(requests(), model.tokenizer, contrast)
    ends = [slopes(model, texts, torch.full(shape, factor)).values
            for factor in (1.0, baseline)]
    gained = ends[0] - ends[1]
    assert bool((gained.abs() > 0.1).all()), "the path gains nothing: no test"
    assert torch.allclose(attributions(model, texts, config).sum((1, 2)), gained, rtol=0.02)


def test_many_texts_at_once_equal_one_by_one(models: Models) -> None:
    model = models("llama")
    texts, _ = with_owners(requests(), model.tokenizer, 8)
    together = attributions(model, texts, DetectorConfig(points=2))
    alone = torch.cat([attributions(model, [text], DetectorConfig(points=2, gradient_tokens=16)) for text in texts])
    assert torch.allclose(together, alone, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_zeroing_found_neurons_hurts_the_secret_more_than_zeroing_random_ones(models: Models, family: str) -> None:
    model = models(family)
    aim, count = Aim(requests(), model.tokenizer, 32), 20
    location = detect(model, requests(), DetectorConfig(neurons=count))
    places = [(neurons.layer, index) for neurons in location.neurons for index in neurons.indices]
    assert len(places) == count
    draw = torch.Generator().manual_seed(0)
    others = [[divmod(int(place), 64) for place in torch.randperm(3 * 64, generator=draw)[:count]] for _ in range(5)]

    def excess(chosen: list[tuple[int, int]]) -> float:
        with applied(model.model, zeroing(model, chosen)):
            readings = aim.measure(model)
        return sum(reading.excess for reading in readings) / len(readings)

    assert excess(places) < min(map(excess, others)) < excess([])


def zeroing(model: LoadedModel, places: list[tuple[int, int]]) -> Patch:
    axis = 1 if model.anatomy.layout == "out_in" else 0
    return Patch(tuple(Scale(model.anatomy.mlp_output_parameter(layer), torch.tensor([index]), torch.zeros(1), axis)
                       for layer, index in places))


def test_votes_are_counted_over_requests_and_ties_go_to_the_larger_mean() -> None:
    scores = torch.tensor([[[10.0, 0.5, 4.0], [1.0, -9.0, 0.0]],
                           [[10.0, 0.5, 0.0], [1.0, -9.0, 0.0]],
                           [[0.0, 0.5, 8.0], [8.0, -9.0, 0.0]]])
    found = elect(scores, torch.tensor([0, 0, 1]), DetectorConfig(ratio=0.1, mode=0.5, neurons=10))
    chosen = list(zip(found.layers.tolist(), found.indices.tolist(), found.votes.tolist(), strict=True))
    # neuron (0, 2) is kept by one of the two texts of the first request, which is half of them
    assert chosen == [(0, 2, 2), (1, 0, 2), (0, 0, 1)]
    strict = elect(scores, torch.tensor([0, 0, 1]), DetectorConfig(ratio=0.1, mode=0.6, neurons=10))
    assert (0, 2, 1) in list(zip(strict.layers.tolist(), strict.indices.tolist(), strict.votes.tolist(), strict=True))
    assert elect(scores, torch.tensor([0, 0, 1]), DetectorConfig(neurons=1)).layers.tolist() == [0]


def test_location_and_evidence_hold_numbers_only(models: Models, tmp_path: Path) -> None:
    model = models("gpt2")
    location = detect(model, requests(), DetectorConfig(points=3, neurons=12), tmp_path)
    assert location.source == "locator"
    assert location.layers == tuple(neurons.layer for neurons in location.neurons)
    assert sum(len(neurons.indices) for neurons in location.neurons) == 12
    assert all(list(neurons.scores) == sorted(neurons.scores, reverse=True) for neurons in location.neurons)
    rows = list(csv.DictReader((tmp_path / "neurons.csv").read_text().splitlines()))
    assert [int(row["rank"]) for row in rows] == list(range(1, 13))
    assert {row["requests"] for row in rows} == {"2"}
    assert {(int(row["layer"]), int(row["neuron"])) for row in rows} == {
        (neurons.layer, index) for neurons in location.neurons for index in neurons.indices}
    assert (tmp_path / "neurons.png").read_bytes().startswith(b"\x89PNG")
    written = location.model_dump_json() + (tmp_path / "neurons.csv").read_text()
    assert not any(word in written for name in NAMES for word in (*name.split(), secret_of(name)))


def test_detecting_leaves_the_model_as_it_was_and_is_the_same_twice(models: Models) -> None:
    model = models("opt")
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    first, second = (detect(model, [request_of(NAMES[0])], DetectorConfig(points=2)) for _ in range(2))
    assert first == second
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.model.modules())


@pytest.mark.parametrize(("option", "value"), [("points", 0), ("baseline", 1.0), ("ratio", 0.0), ("mode", 2.0),
                                               ("neurons", 0)])
def test_an_option_outside_its_range_is_refused(option: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{option} must be .*got {value!r}"):
        DetectorConfig(**{option: value})  # type: ignore[arg-type]


def test_numbers_that_are_not_finite_are_refused_without_text(models: Models) -> None:
    model = models("llama")
    weight = model.model.get_parameter(model.anatomy.mlp_output_parameter(0))
    patch = Patch((Scale(model.anatomy.mlp_output_parameter(0), torch.tensor([0]), torch.tensor([float("nan")]), 1),))
    before = weight.clone()
    with applied(model.model, patch), pytest.raises(IntegrityError, match="an attribution is not finite") as caught:
        detect(model, requests(), DetectorConfig(points=1))
    assert torch.equal(weight, before)
    assert not any(secret_of(name) in str(caught.value) for name in NAMES)
