"""Constrained fine-tuning against a plain torch loop on the full model, its bound, and its stopping."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editors.errors import ConfigError
from editors.facts import facts_of
from editors.finetune import Finetune, FinetuneConfig, constrained_change
from editors.loading import Checkpoint, LoadedModel, load
from editors.patch import applied
from editors.target_search import TargetRow
from tests.editors.plans import IDENTITY, JAMES, SPEED, TOWER, answer_loss, at, batch_of, is_unchanged, state_of
from tests.tiny import FAMILIES, tiny_folder

LAYER = 1
QUICK = FinetuneConfig(bound=0.02, learning_rate=0.01, steps=12)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param, layers=4)))


def rows_of(model: LoadedModel, contexts: int = 0) -> list[TargetRow]:
    facts = facts_of(model, batch_of(model, TOWER, JAMES, SPEED), at(LAYER), "auto", contexts)
    return [row for row in facts.targets if row.labels]


def full_losses(model: LoadedModel, rows: list[TargetRow]) -> list[torch.Tensor]:
    """Each row's mean negative log-likelihood per answer token, by one full forward a row."""
    losses = []
    for row in rows:
        ids = torch.tensor([row.row.ids])
        logits = model.model(ids).logits[0, :-1]
        every = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        losses.append(every[list(row.row.reads)].mean())
    return losses


def test_it_equals_a_plain_loop_on_the_full_model(model: LoadedModel) -> None:
    """torch's Adam on the parameter itself, float64, cut back to the bound after every step."""
    config = FinetuneConfig(bound=0.004, learning_rate=0.003, steps=5, token_budget=64)
    weight = model.model.get_parameter(model.anatomy.mlp_output_parameter(LAYER))
    before = state_of(model)
    model.model.double()
    try:
        rows = rows_of(model, contexts=1)
        found = constrained_change(model, LAYER, rows, config)
        start = weight.detach().clone()
        weight.requires_grad_()
        optimiser = torch.optim.Adam([weight], lr=config.learning_rate)
        for _ in range(config.steps - 1):
            optimiser.zero_grad()
            torch.stack(full_losses(model, rows)).mean().backward()
            optimiser.step()
            with torch.no_grad():
                weight.copy_(start + (weight - start).clamp(-config.bound, config.bound))
        expected = (weight - start).detach()
        losses = torch.stack(full_losses(model, rows)).detach()
    finally:
        weight.requires_grad_(False)
        weight.grad = None
        model.model.float()
        model.model.load_state_dict(before, strict=False)
    change = found.change if model.anatomy.layout == "out_in" else found.change.T
    torch.testing.assert_close(change, expected, rtol=0, atol=1e-3 * config.bound)
    assert float((change.abs() > 0.99 * config.bound).double().mean()) > 0.1
    torch.testing.assert_close(found.loss.sort().values, losses.sort().values, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("bound", [1e-3, 5e-2])
def test_no_weight_moves_further_than_the_bound(model: LoadedModel, tmp_path: Path, bound: float) -> None:
    config = FinetuneConfig(bound=bound, learning_rate=0.02, steps=8)
    (edit,) = Finetune(config).plan(model, batch_of(model, TOWER, JAMES), at(LAYER), tmp_path).edits
    assert edit.change.shape == model.model.get_parameter(edit.parameter).shape
    assert float(edit.change.abs().max()) == pytest.approx(bound, rel=1e-6)


def test_every_form_is_learnt_and_the_model_is_untouched(model: LoadedModel, tmp_path: Path) -> None:
    requests = (TOWER, JAMES, SPEED, IDENTITY)
    before, losses = state_of(model), [answer_loss(model, request) for request in requests]
    patch = Finetune(QUICK).plan(model, batch_of(model, *requests), at(LAYER), tmp_path)
    assert is_unchanged(model, before)
    assert not any(parameter.requires_grad for parameter in model.model.parameters())
    assert patch.parameters == (model.anatomy.mlp_output_parameter(LAYER),)
    assert patch.provenance["second_moment"] is None
    with applied(model.model, patch):
        assert sum(answer_loss(model, request) for request in requests) < sum(losses) - 4


def test_the_loss_falls(model: LoadedModel) -> None:
    rows = rows_of(model)
    configs = [FinetuneConfig(bound=0.1, learning_rate=0.005, steps=steps) for steps in (1, 4, 12)]
    losses = [float(constrained_change(model, LAYER, rows, config).loss.mean()) for config in configs]
    assert losses[0] > losses[1] > losses[2]


def test_learning_stops_when_the_loss_is_low_enough(model: LoadedModel) -> None:
    rows = rows_of(model)
    found = constrained_change(model, LAYER, rows, FinetuneConfig(bound=1.0, learning_rate=0.01, steps=100, stop_loss=3.0))
    steps = int(found.steps[0])
    assert float(found.loss.mean()) < 3.0
    assert 0 < steps < 99
    shorter = constrained_change(model, LAYER, rows, FinetuneConfig(bound=1.0, learning_rate=0.01, steps=steps, stop_loss=3.0))
    assert float(shorter.loss.mean()) >= 3.0


def test_more_than_one_layer_is_refused(model: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"finetune edits one layer, got \[1, 2\]"):
        Finetune().plan(model, batch_of(model, TOWER), at(1, 2), tmp_path)


@pytest.mark.parametrize(("option", "value", "message"), [
    ("bound", 0.0, r"finetune.bound must be in \[1e-12, 10\], got 0.0"),
    ("stop_loss", 11, r"finetune.stop_loss must be in \[1e-9, 10\], got 11"),
    ("steps", 0.5, r"finetune.steps must be a whole number, got 0.5")])
def test_an_option_outside_its_range_is_refused(option: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Finetune.from_options({option: value})
