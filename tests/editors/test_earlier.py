"""A sequence of batches against one batch: what is remembered in a patch, held by the next, and let go when rewritten."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editors.earlier import earlier_keys, remembered
from editors.loading import Checkpoint, LoadedModel, load
from editors.memit import Memit, MemitConfig
from editors.moments import Corpus
from editors.patch import Patch, applied, load_patch
from editors.rome import Rome, RomeConfig
from editors.target_search import SearchConfig
from tests.editors.plans import JAMES, SPEED, TOWER, at, batch_of, key_of
from tests.tiny import tiny_folder

SEARCH = SearchConfig(steps=5, clamp=2.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), "llama")))


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    generator = torch.Generator().manual_seed(5)
    return Corpus("random", tuple(tuple(torch.randint(5, 100, (24,), generator=generator).tolist()) for _ in range(60)))


@pytest.mark.parametrize("editor", [Memit(MemitConfig(contexts=0, covariance_weight=0.1, search=SEARCH)),
                                    Rome(RomeConfig(contexts=0, covariance_weight=0.1, search=SEARCH))])
def test_next_batch_disturbs_what_was_written_less(model: LoadedModel, corpus: Corpus, tmp_path: Path, editor) -> None:
    editor.corpus = corpus
    first = editor.plan(model, batch_of(model, TOWER), at(1), tmp_path)
    (name,) = first.parameters
    written = first.memory[f"keys.{name}"].double()
    with applied(model.model, first):
        second = batch_of(model, JAMES, SPEED)
        held, free = (editor.plan(model, second, at(1), tmp_path, earlier=stack) for stack in ([first], []))
    moved = [float((patch.edits[0].delta(model.model.get_parameter(name)) @ written).norm()) for patch in (held, free)]
    assert moved[0] < 0.5 * moved[1]


def test_memory_is_kept_in_the_file(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    patch = Memit(MemitConfig(contexts=0, search=SEARCH), corpus).plan(model, batch_of(model, TOWER), at(0, 1), tmp_path)
    digest = patch.save(tmp_path / "patch")
    again = load_patch(tmp_path / "patch", digest)
    assert set(again.memory) == {f"keys.{name}" for name in patch.parameters}
    for name, tensor in patch.memory.items():
        torch.testing.assert_close(again.memory[name], tensor, rtol=0, atol=0)
    anchored = key_of(model, TOWER.model_copy(update={"prompt": "{}"}), 0)
    torch.testing.assert_close(again.memory[f"keys.{model.anatomy.mlp_output_parameter(0)}"][:, 0], anchored,
                               rtol=1e-4, atol=1e-6)


def test_key_written_anew_is_let_go() -> None:
    old = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))
    stack = [Patch((), {}, remembered({"w": old[:, :2]})), Patch((), {}, remembered({"w": old[:, 2:], "v": old}))]
    held = earlier_keys(stack, "w", old[:, 1:2] + 1e-4)
    assert held is not None
    torch.testing.assert_close(held, old[:, [0, 2]].double(), rtol=0, atol=0)
    assert earlier_keys(stack, "w", old) is None
    assert earlier_keys(stack, "x", old) is None
