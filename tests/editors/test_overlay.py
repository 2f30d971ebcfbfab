"""Several versions in the memory of one model: each is what its baked folder is, and the base stays the base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editors.bake import bake
from editors.digest import digest_tensor
from editors.errors import IntegrityError
from editors.loading import Checkpoint, load
from editors.overlay import laid_over, overlay_of
from editors.patch import LowRank, Patch
from tests.tiny import tiny_model, tiny_tokenizer

DOWN = "model.layers.{}.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Stored in bfloat16, so that the casts of a stack matter."""
    folder = tmp_path_factory.mktemp("base")
    tiny_model().to(torch.bfloat16).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return Checkpoint(folder)


def edit(layer: int, seed: int, **provenance: object) -> Patch:
    draw = torch.Generator().manual_seed(seed)
    return Patch((LowRank(DOWN.format(layer), torch.randn(32, 1, generator=draw) / 9, torch.randn(1, 64, generator=draw) / 9),),
                 provenance)


def test_under_its_overlay_a_model_is_its_baked_folder(base: Checkpoint, tmp_path: Path) -> None:
    stack = [edit(0, 1), edit(1, 2), edit(0, 3)]
    model = load(base, "cpu").model
    overlay = overlay_of(base, stack, model)
    assert sorted(overlay) == [DOWN.format(0), DOWN.format(1)]
    before = {name: (parameter.data_ptr(), parameter.clone()) for name, parameter in model.named_parameters()}
    with laid_over(model, overlay):
        held = {name: parameter.clone() for name, parameter in model.named_parameters()}
    baked = load(bake(base, stack, tmp_path / "baked"), "cpu").model
    assert all(torch.equal(parameter, held[name]) for name, parameter in baked.named_parameters())
    assert not torch.equal(held[DOWN.format(0)], before[DOWN.format(0)][1])
    for name, parameter in model.named_parameters():
        assert (parameter.data_ptr(), True) == (before[name][0], torch.equal(parameter, before[name][1]))


def test_the_base_comes_back_when_something_fails_under_an_overlay(base: Checkpoint) -> None:
    model = load(base, "cpu").model
    before = model.get_parameter(DOWN.format(0)).data_ptr()
    with pytest.raises(KeyboardInterrupt), laid_over(model, overlay_of(base, [edit(0, 1)], model)):
        raise KeyboardInterrupt
    assert model.get_parameter(DOWN.format(0)).data_ptr() == before


def test_a_patch_of_another_base_is_refused(base: Checkpoint) -> None:
    stranger = edit(0, 1, pre_image={DOWN.format(0): digest_tensor(torch.zeros(3))})
    with pytest.raises(IntegrityError, match="is not the tensor this patch was made for"):
        overlay_of(base, [stranger], load(base, "cpu").model)
