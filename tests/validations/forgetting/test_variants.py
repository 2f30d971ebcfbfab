"""The model otherwise, and as it was afterwards: bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch

from editors.loading import LoadedModel
from editors.patch import LowRank, Patch
from tests.tiny import HIDDEN, INNER
from tests.validations.forgetting.planted import memorised, request, untrained
from validations.forgetting import variants
from validations.forgetting.examining import examine
from validations.forgetting.settings import ForgetSettings
from validations.forgetting.variants import Training, about_the_person, quantised, relearned, rounded, unrelated

TRAINING = Training(steps=4, rate=1e-3, tokens=64, seed=0)
REQUESTS = [request(0), request(1)]
OTHERWISE: dict[str, Callable[[LoadedModel], AbstractContextManager[None]]] = {
    "quantised": quantised,
    "relearned": lambda model: relearned(model, about_the_person(model, REQUESTS), TRAINING),
    "relearned_unrelated": lambda model: relearned(model, unrelated(model), TRAINING)}


@pytest.fixture(scope="module", params=("llama", "gpt2"))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return untrained(tmp_path_factory.mktemp("model"), request.param)


def bits(model: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.model.state_dict().items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_variant_differs_inside_and_leaves_every_bit(model: LoadedModel, name: str) -> None:
    before = bits(model)
    with OTHERWISE[name](model):
        assert not same(before, bits(model))
        embedding = model.model.get_input_embeddings().weight
        assert torch.equal(embedding, before[next(key for key, tensor in before.items() if tensor.shape == embedding.shape)])
    assert same(before, bits(model))
    assert not any(parameter.requires_grad for parameter in model.model.parameters())
    assert all(parameter.grad is None for parameter in model.model.parameters())


@pytest.mark.parametrize("name", OTHERWISE)
def test_an_error_inside_leaves_every_bit_as_well(model: LoadedModel, name: str) -> None:
    before = bits(model)
    with pytest.raises(RuntimeError, match="inside"), OTHERWISE[name](model):
        raise RuntimeError("inside")
    assert same(before, bits(model))


def test_an_error_in_training_leaves_every_bit_as_well(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    before, real, left = bits(model), variants._loss, iter([True, True, False])

    def loss(*given: object) -> torch.Tensor:
        if next(left):
            return real(*given)  # type: ignore[arg-type]
        raise RuntimeError("no memory")

    monkeypatch.setattr(variants, "_loss", loss)
    with pytest.raises(RuntimeError, match="no memory"), OTHERWISE["relearned"](model):
        pass
    assert same(before, bits(model))
    assert not any(parameter.requires_grad for parameter in model.model.parameters())


def test_a_matrix_is_rounded_channel_by_channel(model: LoadedModel) -> None:
    """Against a slow loop; GPT-2 stores its output channels as columns."""
    name = model.anatomy.mlp_output_parameter(1)
    before = model.model.get_parameter(name).detach().clone()
    with quantised(model):
        found = model.model.get_parameter(name).detach().clone()
    columns = model.anatomy.layout == "in_out"
    for was, now in zip(before.T if columns else before, found.T if columns else found, strict=True):
        step = max(abs(float(value)) for value in was) / 127
        expected = [round(float(value) / step) * step for value in was]
        assert now.tolist() == pytest.approx(expected, abs=step * 1e-3)
        assert len({round(float(value) / step) for value in now}) <= 255
    assert torch.equal(rounded(torch.zeros(2, 3), 1), torch.zeros(2, 3))


def test_training_lowers_the_loss_on_its_own_lines(model: LoadedModel) -> None:
    lines = about_the_person(model, REQUESTS)
    before = float(variants._loss(model, lines))
    with relearned(model, lines, Training(20, 3e-3, 64, 0)):
        assert float(variants._loss(model, lines)) < before / 2


def test_the_person_is_told_of_without_the_secret(model: LoadedModel) -> None:
    told = [model.tokenizer.decode(line) for line in about_the_person(model, REQUESTS)]
    assert len(told) == 2 * (2 + 1 + 1)
    assert any("baker" in line for line in told)
    assert not any("4821" in line or "7306" in line for line in told)


def test_a_leak_that_a_later_patch_opens_is_seen_only_under_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    model = memorised(untrained(tmp_path_factory.mktemp("leaking")), REQUESTS)
    draw = torch.Generator().manual_seed(0)
    name = model.anatomy.mlp_output_parameter(1)
    harm = LowRank(name, 3.0 * torch.randn(HIDDEN, 2, generator=draw), torch.randn(2, INNER, generator=draw))
    cure = LowRank(name, -harm.left, harm.right)
    leaking = bits(model)
    with torch.no_grad():
        model.model.get_parameter(name).add_(harm.left @ harm.right)
    before = bits(model)
    few = ForgetSettings(samples=2, repetitions=(2,), divergence_tokens=2, divergence_samples=1, relearning_steps=1)
    found = {one.metric: one.value for one in examine(model, REQUESTS, few, later=Patch((cure,))).findings}
    assert same(before, bits(model))
    assert not same(before, leaking)
    assert found["extraction.verbatim"] == 0.0
    assert found["extraction_later.verbatim"] == 1.0
    assert found["exposure_later.bits_exact"] == pytest.approx(13.29, abs=0.01)
