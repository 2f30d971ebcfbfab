"""One patch out of the middle: the bits of the remaining edits on the base, new addresses, and a wrong base refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import editors.stack
from editors.bake import bake, read_tensors
from editors.errors import ConfigError, IntegrityError
from editors.loading import Checkpoint, read_shard
from editors.patch import Dense, LowRank, Patch, Scale, edited_tensor
from editors.stack import inverse, without
from tests.tiny import HIDDEN, INNER, tiny_folder

DOWN = "model.layers.{}.mlp.down_proj.weight"


def low_rank(layer: int, seed: int) -> LowRank:
    draw = torch.Generator().manual_seed(seed)
    return LowRank(DOWN.format(layer), torch.randn(HIDDEN, 2, generator=draw) * 0.1, torch.randn(2, INNER, generator=draw))


class Line:
    """Three patches, each planned on what the ones before left: layers 0 and 1, then 1 and 2, then 0, 1 and a scale."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        source = Checkpoint(tiny_folder(folder / "plain"))
        (shard,) = source.shards
        save_file({name: tensor.to(dtype) for name, tensor in read_shard(source.folder / shard).items()},
                  source.folder / shard, {"format": "pt"})
        self.base = bake(Checkpoint(source.folder), (), folder / "base")
        self.folder = folder
        scale = Scale(DOWN.format(2), torch.tensor([3, 5]), torch.tensor([0.5, 2.0]), axis=1)
        self.patches: list[Patch] = []
        for edits in ((low_rank(0, 1), low_rank(1, 2)), (low_rank(1, 3), low_rank(2, 4)),
                      (low_rank(0, 5), low_rank(1, 6), scale)):
            parent = bake(self.base, self.patches, folder / f"parent-{len(self.patches)}")
            pre_image = {edit.parameter: parent.tensor_digests[edit.parameter] for edit in edits}
            keys = {f"keys.{edit.parameter}": torch.ones(INNER, 1) for edit in edits}
            self.patches.append(Patch(edits, {"pre_image": pre_image, "method": "memit"}, keys))


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def line(request: pytest.FixtureRequest, tmp_path: Path) -> Line:
    return Line(tmp_path, request.param)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_bits_are_those_of_the_remaining_edits_in_order(line: Line, place: int) -> None:
    kept = [patch for number, patch in enumerate(line.patches) if number != place]
    baked = bake(line.base, without(line.base, line.patches, line.patches[place].digest), line.folder / "without")
    for name in {name for patch in line.patches for name in patch.parameters}:
        (found,), (weight,) = (read_tensors(folder, [name]).values() for folder in (baked, line.base))
        dtype = weight.dtype
        for patch in kept:
            edits = [edit for edit in patch.edits if edit.parameter == name]
            weight = (weight.double() + sum(edit.delta(weight) for edit in edits)).to(dtype) if edits else weight
        assert torch.equal(found, weight), name


def test_the_last_patch_taken_out_gives_the_parents_bytes(line: Line) -> None:
    stack = without(line.base, line.patches, line.patches[-1].digest)
    assert [patch.digest for patch in stack] == [patch.digest for patch in line.patches[:-1]]
    assert bake(line.base, stack, line.folder / "without").digest == Checkpoint(line.folder / "parent-2").digest


def test_later_patches_keep_edits_and_memory_and_say_where_they_come_from(line: Line) -> None:
    first, middle, last = line.patches
    stack = without(line.base, line.patches, middle.digest)
    assert stack[0] is first
    assert stack[1].edits == last.edits
    assert stack[1].memory == last.memory
    assert stack[1].provenance["readdressed"] == {"from": last.digest, "without": middle.digest}
    assert stack[1].provenance["method"] == "memit"
    now, before = stack[1].provenance["pre_image"], last.provenance["pre_image"]
    assert [name for name in before if now[name] != before[name]] == [DOWN.format(1), DOWN.format(2)]
    assert now[DOWN.format(0)] == before[DOWN.format(0)]
    again = without(line.base, stack, first.digest)
    assert again[0].provenance["readdressed"] == {"from": stack[1].digest, "without": first.digest}
    assert without(line.base, again, again[0].digest) == ()


def test_patches_of_other_parameters_keep_their_digests(line: Line) -> None:
    parent = bake(line.base, line.patches, line.folder / "three")
    apart = Patch((low_rank(2, 9),), {"pre_image": {DOWN.format(2): parent.tensor_digests[DOWN.format(2)]}})
    alone = Patch((Dense(DOWN.format(0), torch.ones(HIDDEN, INNER)),))
    assert without(line.base, [alone, apart], alone.digest)[0].digest == apart.digest


def test_only_tensors_of_the_taken_patch_are_read(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def reading(source: Checkpoint, names: list[str]) -> dict[str, torch.Tensor]:
        seen.extend(names)
        return read_tensors(source, names)

    monkeypatch.setattr(editors.stack, "read_tensors", reading)
    without(line.base, line.patches, line.patches[0].digest)
    assert seen == [DOWN.format(0), DOWN.format(1)]


def test_an_unknown_digest_is_told_the_known_ones(line: Line) -> None:
    with pytest.raises(ConfigError, match="no patch 0000 in the stack; it holds: ") as refused:
        without(line.base, line.patches, "0000")
    assert all(patch.digest in refused.value.message for patch in line.patches)
    with pytest.raises(ConfigError, match="the stack is empty"):
        without(line.base, [], "0000")


def test_a_wrong_base_is_refused_before_the_addresses_are_made_anew(line: Line) -> None:
    other = bake(line.base, [Patch((low_rank(1, 77),))], line.folder / "other")
    with pytest.raises(IntegrityError, match="is not the tensor this patch was made for"):
        without(other, line.patches, line.patches[0].digest)


def test_the_inverse_takes_the_weights_back() -> None:
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(HIDDEN, INNER, generator=draw)
    for edit in (low_rank(0, 1), Dense(DOWN.format(0), torch.randn(HIDDEN, INNER, generator=draw)),
                 Scale(DOWN.format(0), torch.tensor([3]), torch.tensor([0.25]), axis=0)):
        patch = Patch((edit,))
        edited = edited_tensor(DOWN.format(0), weight, [patch])
        back = edited_tensor(DOWN.format(0), edited, [inverse(patch)])
        torch.testing.assert_close(back, weight, rtol=1e-6, atol=1e-6)
