"""A model that carries edits: what it is, what it was, and that both are provable."""

from __future__ import annotations

import pytest
import torch

from benchmarks.line import Line
from editors.digest import digest_tensor
from editors.errors import IntegrityError
from editors.loading import LoadedModel
from editors.patch import LowRank, Patch
from tests.editors.plans import is_unchanged, state_of


def patch_of(model: LoadedModel, layer: int, seed: int, size: float = 0.1) -> Patch:
    name = model.anatomy.mlp_output_parameter(layer)
    rows, columns = model.model.get_parameter(name).shape
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randn(rows, 2, generator=generator), torch.randn(2, columns, generator=generator)
    return Patch((LowRank(name, size * left, right),))


def test_patches_add_up_and_the_model_is_its_old_self_afterwards(model: LoadedModel) -> None:
    before = state_of(model)
    first, second = patch_of(model, 1, 0), patch_of(model, 1, 1)
    name = first.parameters[0]
    with Line(model) as line:
        line.append(first)
        line.append(second)
        line.append(patch_of(model, 2, 2))
        change = sum(patch.edits[0].left.double() @ patch.edits[0].right.double() for patch in (first, second))
        weight = before[name].double()
        assert torch.allclose(model.model.get_parameter(name).double(), weight + change, atol=1e-5)
        norms = line.update_norms()
        assert list(norms) == [1, 2]
        assert norms[1] == pytest.approx(float(change.norm() / weight.norm()), rel=1e-4)
        assert line.model.tensor_digests[name] == digest_tensor(model.model.get_parameter(name))
        assert line.model.digest != model.digest
        line.verify()
    assert is_unchanged(model, before)


def test_the_model_is_its_old_self_after_an_error_too(model: LoadedModel) -> None:
    before = state_of(model)

    def fail() -> None:
        with Line(model) as line:
            line.append(patch_of(model, 1, 0))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert is_unchanged(model, before)


def test_what_an_editor_leaves_behind_is_found(model: LoadedModel) -> None:
    for layer in (1, 3):
        weight = model.model.get_parameter(model.anatomy.mlp_output_parameter(layer))
        clean = weight.detach().clone()
        with Line(model) as line:
            line.append(patch_of(model, 1, 0))
            with torch.no_grad():
                weight[0, 0] += 1
            with pytest.raises(IntegrityError, match=r"is not the base's under the 1 patches appended(.|\n)*test_contract"):
                line.verify()
        with torch.no_grad():
            weight.copy_(clean)


def test_a_patch_for_another_model_or_without_an_end_is_refused_and_nothing_is_written(model: LoadedModel) -> None:
    patch = patch_of(model, 1, 0)
    name = patch.parameters[0]
    before = state_of(model)
    with Line(model) as line:
        with pytest.raises(IntegrityError, match="is not the tensor this patch was made for"):
            line.append(Patch(patch.edits, {"pre_image": {name: "0" * 64}}))
        with pytest.raises(IntegrityError, match=r"patch 1 leaves .* with values that are not finite"):
            line.append(patch_of(model, 1, 0, size=float("inf")))
        assert line.patches == []
        assert is_unchanged(model, before)
