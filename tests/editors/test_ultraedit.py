"""UltraEdit against a slow implementation written out: one full forward and backward a fact, dense algebra."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from editors.contract import Estimate, UpdateRequest
from editors.errors import ConfigError
from editors.gradients import Reading
from editors.loading import Checkpoint, LoadedModel, load
from editors.moments import Corpus, corpus_of_texts, second_moments
from editors.patch import applied
from editors.prospect import prospect_of
from editors.ultraedit import UltraEdit, UltraEditConfig, wanted_changes
from tests.editors.plans import (
    IDENTITY,
    JAMES,
    SPEED,
    TOWER,
    answer_loss,
    at,
    batch_of,
    delta_of,
    is_unchanged,
    seen_of,
    state_of,
)
from tests.tiny import FAMILIES, SENTENCES, tiny_folder

CONFIG = UltraEditConfig(passes=3, aim=2.0, enough=1.0, radius=2.0, covariance_weight=0.5, prior=2)
LAYERS = (1, 2)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param, layers=4)))


@pytest.fixture
def corpus(model: LoadedModel) -> Corpus:
    return corpus_of_texts("sentences", SENTENCES, model, 10_000, window=16)


def test_batch_equals_the_slow_implementation(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    requests = (TOWER, JAMES, SPEED)
    patch = UltraEdit(CONFIG, corpus).plan(model, batch_of(model, *requests), at(*LAYERS), tmp_path)
    expected, _, _ = slow(model, requests, metrics(model, corpus, tmp_path), {layer: [] for layer in LAYERS}, [])
    for edit, layer in zip(patch.edits, LAYERS, strict=True):
        close(delta_of(model, edit), expected[layer])


def test_next_batch_equals_the_slow_implementation_with_its_past(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    """The second batch holds the keys of the first and goes on with its statistics."""
    editor, moments = UltraEdit(CONFIG, corpus), metrics(model, corpus, tmp_path)
    first = editor.plan(model, batch_of(model, TOWER, JAMES), at(*LAYERS), tmp_path)
    _, keys, gradients = slow(model, (TOWER, JAMES), moments, {layer: [] for layer in LAYERS}, [])
    for layer in LAYERS:
        close(first.memory[f"keys.{model.anatomy.mlp_output_parameter(layer)}"].double(), torch.stack(keys[layer]).T)
    with applied(model.model, first):
        second = editor.plan(model, batch_of(model, SPEED), at(*LAYERS), tmp_path, earlier=[first])
        expected, _, _ = slow(model, (SPEED,), moments, keys, [gradients])
    for edit, layer in zip(second.edits, LAYERS, strict=True):
        close(delta_of(model, edit), expected[layer])


def test_every_form_is_learnt_and_the_model_is_untouched(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    requests = (TOWER, JAMES, SPEED, IDENTITY)
    before, losses = state_of(model), [answer_loss(model, request) for request in requests]
    config = replace(CONFIG, passes=15, contexts=1, position="prompt_last")
    patch = UltraEdit(config, corpus).plan(model, batch_of(model, *requests), at(*LAYERS), tmp_path)
    assert is_unchanged(model, before)
    with applied(model.model, patch):
        assert all(answer_loss(model, request) < loss - 1 for request, loss in zip(requests, losses, strict=True))
    assert not any(word in json.dumps(dict(patch.provenance)) for word in ("Eiffel", "Rome", "French", "Who are"))


def test_token_budget_changes_nothing(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    batch = batch_of(model, TOWER, JAMES, SPEED)
    wide, narrow = (UltraEdit(replace(CONFIG, token_budget=budget), corpus).plan(model, batch, at(*LAYERS), tmp_path)
                    for budget in (4096, 16))
    for left, right in zip(wide.edits, narrow.edits, strict=True):
        close(delta_of(model, left), delta_of(model, right))


def test_passes_end_when_every_fact_has_enough(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    config = replace(CONFIG, passes=80, aim=2.0, enough=-1.0, radius=0.1, covariance_weight=1e-3, position="prompt_last")
    requests = [request.model_copy(update={"target": "the"}) for request in (TOWER, JAMES)]
    patch = UltraEdit(config, corpus).plan(model, batch_of(model, *requests), at(*LAYERS), tmp_path,
                                           lambda what, done, total: seen.append((done, total)) if what == "passes" else None)
    assert seen[-1] == (2, 2)
    assert len(seen) < 80
    with applied(model.model, patch):
        assert all(answer_loss(model, request) < 1.4 for request in requests)


def test_facts_with_one_key_become_one(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    again = TOWER.model_copy(update={"id": "again", "prompt": "{} stands in"})
    patch = UltraEdit(CONFIG, corpus).plan(model, batch_of(model, TOWER, again, JAMES), at(1), tmp_path)
    assert min(patch.edits[0].left.shape) == 2


def test_wanted_changes_reach_the_aim_to_first_order_inside_the_radius() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = {layer: torch.randn(8, 3, generator=generator) for layer in (1, 2)}
    deviations = {layer: 0.5 + torch.rand(8, generator=generator) for layer in (1, 2)}
    reading = Reading({}, gradients, torch.tensor([-6.0, -1.0, 4.0]), torch.zeros(3), torch.tensor([0.1, 100.0, 100.0]))
    found = wanted_changes(reading, deviations, UltraEditConfig(aim=3.0, enough=2.0, radius=0.5))
    rise = torch.stack([(gradients[layer] * found[layer]).sum(dim=0) for layer in (1, 2)]).sum(dim=0)
    length = torch.stack([found[layer].square().sum(dim=0) for layer in (1, 2)]).sum(dim=0).sqrt()
    torch.testing.assert_close(rise[1:], torch.tensor([4.0, 0.0]))
    torch.testing.assert_close(length[0], torch.tensor(0.05))
    way = gradients[1][:, 1] / deviations[1]
    torch.testing.assert_close(found[1][:, 1] / found[1][:, 1].norm(), way / way.norm())


@pytest.mark.parametrize(("option", "value", "message"), [
    ("passes", 0, r"ultraedit.passes must be in \[1, 100\], got 0"),
    ("aim", 12.0, r"ultraedit.aim must be in \[-10, 9\], got 12.0"),
    ("enough", 4.0, "ultraedit.enough must not be above aim, got 4.0 and 3.0"),
    ("radius", 0.0, r"ultraedit.radius must be in \[1e-9, 100\], got 0.0"),
    ("prior", 0, r"ultraedit.prior must be in \[1, 1e9\], got 0"),
    ("radios", 0.1, "use 'radius'")])
def test_option_outside_its_range_is_refused(option: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        UltraEdit.from_options({option: value})


def test_estimate_grows_with_the_batch_and_the_passes(model: LoadedModel, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tiny_folder(tmp_path / "model", model.anatomy.model_type, layers=4))

    def cost(config: UltraEditConfig, *requests: UpdateRequest) -> Estimate:
        return UltraEdit(config).estimate(prospect_of(checkpoint, batch_of(model, *requests), LAYERS, tmp_path, device="cpu"))

    one = cost(UltraEditConfig(), TOWER)
    assert cost(UltraEditConfig(), TOWER, JAMES).flops > one.flops > 0
    assert cost(UltraEditConfig(passes=12), TOWER).flops > one.flops
    assert one.memory_bytes > 0


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max()))


def metrics(model: LoadedModel, corpus: Corpus, store: Path) -> dict[int, torch.Tensor]:
    return {layer: moment.double() for layer, moment in second_moments(model, LAYERS, corpus, store).items()}


def slow(model: LoadedModel, requests: tuple[UpdateRequest, ...], moments: dict[int, torch.Tensor],
         held: dict[int, list[torch.Tensor]], past: list[dict[int, list[torch.Tensor]]]):
    """Dense updates a layer, the keys that the last pass saw, and the gradients that the first saw."""
    before = state_of(model)
    wanted = {layer: torch.zeros(model.anatomy.hidden_size, len(requests), dtype=torch.float64) for layer in LAYERS}
    updates: dict[int, torch.Tensor] = {}
    spread: dict[int, torch.Tensor] = {}
    gradients: dict[int, list[torch.Tensor]] = {}
    try:
        for number in range(CONFIG.passes):
            seen = [seen_of(model, request, LAYERS) for request in requests]
            keys = {layer: [fact[0][layer] for fact in seen] for layer in LAYERS}
            if number == 0:
                gradients = {layer: [fact[1][layer] for fact in seen] for layer in LAYERS}
                spread = {layer: deviation([gradient for batch in [*past, gradients] for gradient in batch[layer]])
                          for layer in LAYERS}
            for place, (_, gradient, odds, scale) in enumerate(seen):
                ways = {layer: gradient[layer] / spread[layer] for layer in LAYERS}
                rise = sum(float(gradient[layer] @ ways[layer]) for layer in LAYERS)
                length = sum(float(way @ way) for way in ways.values()) ** 0.5
                step = 0.0 if odds >= CONFIG.enough else min((CONFIG.aim - odds) / rise, CONFIG.radius * scale / length)
                for layer in LAYERS:
                    wanted[layer][:, place] += step * ways[layer]
            for layer in LAYERS:
                new = torch.stack(keys[layer]).T
                system = CONFIG.covariance_weight * moments[layer] + sum(key[:, None] * key for key in held[layer])
                system += CONFIG.covariance_weight * 1e-6 * (system.diagonal().mean() / CONFIG.covariance_weight) * \
                    torch.eye(len(system), dtype=torch.float64)
                updates[layer] = wanted[layer] @ new.T @ torch.linalg.inv(system + new @ new.T)
                change = updates[layer] if model.anatomy.layout == "out_in" else updates[layer].T
                name = model.anatomy.mlp_output_parameter(layer)
                model.model.get_parameter(name).data = (before[name].double() + change).float()
    finally:
        for name, value in before.items():
            model.model.get_parameter(name).data = value
    return updates, keys, gradients


def deviation(vectors: list[torch.Tensor]) -> torch.Tensor:
    every = torch.stack(vectors)
    variance = every.var(dim=0, unbiased=False)
    common = variance.mean() if len(every) > 1 else torch.tensor(1.0)
    variance = variance if len(every) > 1 else torch.ones_like(variance)
    return ((len(every) * variance / common + CONFIG.prior) / (len(every) + CONFIG.prior)).sqrt()
