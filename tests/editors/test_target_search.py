"""The search: steps of a stated length, inside the ball, each edit stopping by itself."""

from __future__ import annotations

import pytest
import torch

from editors.facts import facts_of
from editors.loading import Checkpoint, LoadedModel, load
from editors.suffix import SuffixRunner
from editors.target_search import Descent, Objective, SearchConfig, TargetRow, search_targets, state_norms
from tests.editors.plans import JAMES, SPEED, TOWER, at, batch_of
from tests.tiny import tiny_folder

LAYER = 2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), layers=4)))


@pytest.fixture(scope="module")
def rows(model: LoadedModel) -> tuple[TargetRow, ...]:
    return facts_of(model, batch_of(model, TOWER, JAMES, SPEED), at(LAYER), "prompt_last", 0).targets


def _norms(model: LoadedModel, rows: tuple[TargetRow, ...]) -> torch.Tensor:
    """(3,) norm of each edit's clean state."""
    states = SuffixRunner(model, LAYER, [row.row for row in rows], 4096).clean_states
    return torch.stack([states[[row.row.owner == owner for row in rows]].norm(dim=1).median() for owner in range(3)])


def test_a_step_has_the_stated_length(model: LoadedModel, rows: tuple[TargetRow, ...]) -> None:
    found = search_targets(model, LAYER, rows, SearchConfig(steps=2, learning_rate=0.03, clamp=10.0))
    torch.testing.assert_close(found.change.norm(dim=1), 0.03 * _norms(model, rows))


def test_the_first_step_goes_down_the_gradient(model: LoadedModel, rows: tuple[TargetRow, ...]) -> None:
    """Halving a short step halves the gain: the loss falls along the gradient, as far as it is straight."""
    start = search_targets(model, LAYER, rows, SearchConfig(steps=1)).loss
    gains = [start - search_targets(model, LAYER, rows, SearchConfig(steps=2, learning_rate=rate, clamp=10.0)).loss
             for rate in (0.002, 0.001)]
    assert bool((gains[1] > 0).all())
    torch.testing.assert_close(gains[0], 2 * gains[1], rtol=0.1, atol=1e-5)


def test_no_change_leaves_the_ball(model: LoadedModel, rows: tuple[TargetRow, ...]) -> None:
    found = search_targets(model, LAYER, rows, SearchConfig(steps=20, clamp=0.25, stop_loss=1e-6))
    torch.testing.assert_close(found.change.norm(dim=1), 0.25 * _norms(model, rows), rtol=1e-4, atol=0)


def test_an_edit_that_has_arrived_stands_still(model: LoadedModel, rows: tuple[TargetRow, ...]) -> None:
    long = SearchConfig(steps=60, clamp=10.0, stop_loss=8.5)
    found = search_targets(model, LAYER, rows, long)
    assert bool((found.loss < 8.5).all())
    first = int(found.steps.argmin())
    short = SearchConfig(steps=int(found.steps[first]) + 1, clamp=10.0, stop_loss=8.5)
    assert torch.equal(search_targets(model, LAYER, rows, short).change[first], found.change[first])


def test_nothing_is_searched_where_attention_rests(model: LoadedModel, rows: tuple[TargetRow, ...]) -> None:
    runner = SuffixRunner(model, LAYER, [row.row for row in rows])
    scale = state_norms(runner, rows)
    owner = 0
    assert len(scale) > 2
    large = torch.where(torch.arange(len(scale)) == owner, 100 * scale.max(), scale)
    descent = Descent(len(scale), model, SearchConfig(steps=4))
    descent.run(Objective(runner, rows, {}), large, 0.05, 4)
    assert float(descent.found.change[owner].norm()) == 0.0
    assert bool(torch.isfinite(descent.found.loss).all())
    assert bool((descent.found.change.norm(dim=1)[torch.arange(len(scale)) != owner] > 0).all())
