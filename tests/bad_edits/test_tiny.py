"""Bad edits that any model shows, on a tiny one: nothing done, numbers broken, more done than declared, wrong baseline."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from editors.bake import bake
from editors.contract import EditBatch, Neighbour, UpdateRequest
from editors.loading import Checkpoint, read_shard
from editors.patch import Dense, LowRank, Patch, edited_tensor
from tests.bad_edits.judging import Line, refusing
from tests.tiny import HIDDEN, INNER, tiny_folder

FILES = ("baseline", "integrity")
NAME = "model.layers.{}.mlp.down_proj.weight"
REQUEST = UpdateRequest(id="eiffel", prompt="{} is located in the city of", subject="The Eiffel Tower", target="Rome",
                        was="Paris", neighbours=(Neighbour(prompt="The Louvre can be found in"),))


def bump(layer: int, size: float) -> LowRank:
    """A change of one matrix, drawn from a fixed seed; `size` scales it."""
    draw = torch.Generator().manual_seed(layer)
    return LowRank(NAME.format(layer), size * torch.randn(HIDDEN, 1, generator=draw),
                   torch.randn(1, INNER, generator=draw))


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    folder = tmp_path_factory.mktemp("tiny")
    base = bake(Checkpoint(tiny_folder(folder / "plain")), (), folder / "base")
    return Line.of(base, base, [REQUEST])


@pytest.fixture(scope="module")
def half(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Line:
    """The same model, stored in bfloat16."""
    folder = tmp_path_factory.mktemp("half") / "base"
    shutil.copytree(line.base.folder, folder)
    for shard in line.base.shards:
        (folder / shard).unlink()
        save_file({name: tensor.bfloat16() for name, tensor in read_shard(line.base.folder / shard).items()}, folder / shard,
                  {"format": "pt"})
    base = Checkpoint(folder)
    return Line.of(base, base, [REQUEST])


def about_files(names: list[str]) -> list[str]:
    """The rules that look at files and digests: what a random model answers is no matter here."""
    return [name for name in names if name.startswith(FILES)]


def test_a_small_declared_change_breaks_no_rule_about_files(line: Line, tmp_path: Path) -> None:
    patch = Patch((bump(1, 0.01),))
    verdict = line.verdict(line.bake(patch, tmp_path / "candidate"), patch)
    assert about_files(refusing(verdict)) == []


def test_an_edit_that_does_nothing_is_refused_as_such(line: Line, tmp_path: Path) -> None:
    patch = Patch((bump(1, 0.0),))
    verdict = line.verdict(line.bake(patch, tmp_path / "candidate"), patch)
    assert about_files(refusing(verdict)) == ["baseline.digests", "integrity.something_changed"]
    assert verdict.candidate_digest == verdict.parent_digest


def test_an_edit_that_is_not_a_number_is_refused_as_such(line: Line, tmp_path: Path) -> None:
    good = bump(1, 0.01)
    patch = Patch((replace(good, left=good.left.index_fill(0, torch.tensor([3]), torch.nan)),))
    verdict = line.verdict(line.bake(patch, tmp_path / "candidate"), patch)
    finite = next(rule for rule in verdict.rules if rule.name == "integrity.finite")
    assert refusing(verdict)[0] == "integrity.finite"
    assert set(finite.blame) == {NAME.format(1), "logits"}


def test_a_tensor_changed_beyond_the_patch_is_refused_by_its_name(line: Line, tmp_path: Path) -> None:
    declared, hidden = bump(1, 0.01), bump(2, 0.01)
    verdict = line.verdict(line.bake(Patch((declared, hidden)), tmp_path / "candidate"), Patch((declared,)))
    undeclared = next(rule for rule in verdict.rules if rule.name == "integrity.undeclared_changed")
    assert about_files(refusing(verdict)) == ["integrity.undeclared_changed"]
    assert undeclared.blame == (NAME.format(2),)


def test_a_baseline_that_is_not_the_parents_is_refused(line: Line, tmp_path: Path) -> None:
    """The channel has moved on since the baseline was observed: the candidate stacks on another parent."""
    moved = line.bake(Patch((bump(0, 0.01),)), tmp_path / "moved")
    patch = Patch((bump(1, 0.01),))
    now = EditBatch(purpose="update", base_digest=line.base.digest, parent_digest=moved.digest, requests=(REQUEST,))
    verdict = line.verdict(line.bake(patch, tmp_path / "candidate"), patch, batch=now)
    baseline = next(rule for rule in verdict.rules if rule.name == "baseline.digests")
    assert about_files(refusing(verdict)) == ["baseline.digests"]
    assert "baseline is the parent" in baseline.blame


def test_a_rewritten_matrix_is_refused_by_its_norm(line: Line, tmp_path: Path) -> None:
    patch = Patch((bump(1, 10.0),))
    verdict = line.verdict(line.bake(patch, tmp_path / "candidate"), patch)
    assert about_files(refusing(verdict)) == ["integrity.update_relative_norm", "integrity.cumulative_relative_norm"]


def test_an_edit_made_on_the_base_instead_of_the_release_is_refused(line: Line, tmp_path: Path) -> None:
    """The release is lost, so the change between parent and candidate is not the patch's own."""
    release, patch = Patch((bump(1, 0.02),)), Patch((bump(1, 0.01),))
    on_release = Line.of(line.base, line.bake(release, tmp_path / "release"), [REQUEST])
    verdict = on_release.verdict(line.bake(patch, tmp_path / "candidate"), patch)
    assert "integrity.foreign_change" in refusing(verdict)


def test_an_edit_that_rounding_erased_is_refused_as_such(half: Line, tmp_path: Path) -> None:
    """What bfloat16 leaves of a weak edit, written as a patch of its own, because baking refuses the edit itself."""
    weak = bump(1, 1e-4)
    weight = read_shard(half.parent.folder / half.parent.weight_map[weak.parameter])[weak.parameter]
    left = edited_tensor(weak.parameter, weight, [Patch((weak,))]).double() - weight.double()
    candidate = half.bake(Patch((Dense(weak.parameter, left.float()),)), tmp_path / "candidate")
    verdict = half.verdict(candidate, Patch((weak,)))
    assert about_files(refusing(verdict)) == ["integrity.cast_loss"]


def test_noise_of_half_precision_refuses_nothing(half: Line, tmp_path: Path) -> None:
    patch = Patch((bump(1, 0.003),))
    verdict = half.verdict(half.bake(patch, tmp_path / "candidate"), patch)
    noise = next(rule for rule in verdict.rules if rule.name == "integrity.cast_noise")
    assert noise.observed > 0.01
    assert about_files(refusing(verdict)) == []
