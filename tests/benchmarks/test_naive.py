"""The reference path against the engine: one objective, one gradient, one update; so only the cost differs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import naive
from editors.facts import facts_of
from editors.loading import Checkpoint, LoadedModel, load
from editors.memit import Memit, MemitConfig
from editors.moments import Corpus, second_moments
from editors.rome import Rome, RomeConfig
from editors.suffix import SuffixRunner
from editors.target_search import Objective, SearchConfig, search_targets, state_norms
from tests.editors.plans import JAMES, TOWER, at, batch_of, delta_of
from tests.tiny import FAMILIES, tiny_folder


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param)))


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    generator = torch.Generator().manual_seed(5)
    return Corpus("random", tuple(tuple(torch.randint(5, 100, (24,), generator=generator).tolist()) for _ in range(60)))


def test_objective_and_gradient_are_the_engines(model: LoadedModel) -> None:
    rows = facts_of(model, batch_of(model, TOWER), at(1), "auto", 5).targets
    change = 0.3 * torch.randn(model.anatomy.hidden_size, generator=torch.Generator().manual_seed(1))
    runner = SuffixRunner(model, 1, [row.row for row in rows])
    objective, scale = Objective(runner, rows, {}), state_norms(runner, rows)
    objective(torch.zeros_like(change)[None], scale, SearchConfig())
    loss, gradient = objective(change[None], scale, SearchConfig())
    change.requires_grad_()
    slow, total = naive.Objective(model, 1, rows)(change, naive.Settings(decay=0.0))
    torch.testing.assert_close(loss[0], slow.detach(), rtol=1e-4, atol=0)
    expected = torch.autograd.grad(total, change)[0]
    assert float((gradient[0] - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.parametrize("layers", [(1,), (0, 1)])
def test_same_change_is_written_as_the_engine_writes_it(model: LoadedModel, corpus: Corpus, tmp_path: Path, layers) -> None:
    search = SearchConfig(steps=4)
    editor = Memit(MemitConfig(contexts=3, covariance_weight=2.0, search=search), corpus) if len(layers) > 1 \
        else Rome(RomeConfig(contexts=3, search=search), corpus)
    batch = batch_of(model, TOWER, JAMES)
    patch = editor.plan(model, batch, at(*layers), tmp_path)
    facts = facts_of(model, batch, at(*layers), "auto", 3)
    change = search_targets(model, layers[-1], facts.targets, search).change
    moments = second_moments(model, layers, corpus, tmp_path)
    slow = naive.write(model, layers, facts, change, moments, 2.0 if len(layers) > 1 else 0.0)
    for fast, expected in zip(patch.edits, slow.edits, strict=True):
        assert fast.parameter == expected.parameter
        wanted = delta_of(model, expected)
        assert float((delta_of(model, fast) - wanted).norm() / wanted.norm()) < 1e-3


def test_search_goes_down_inside_its_ball(model: LoadedModel) -> None:
    rows = facts_of(model, batch_of(model, TOWER), at(1), "auto", 2).targets
    change = naive.search(model, 1, rows, naive.Settings())
    objective = naive.Objective(model, 1, rows)
    with torch.no_grad():
        before, _ = objective(torch.zeros_like(change), naive.Settings())
        after, _ = objective(change, naive.Settings())
    assert float(after) < float(before)
    assert float(change.norm()) <= 4.0 * objective.scale * (1 + 1e-5)
