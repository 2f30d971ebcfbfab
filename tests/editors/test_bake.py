"""Baking: exact values, untouched shards shared, whole or absent, and a folder that plain transformers loads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from editors.bake import REST, bake, casts, read_tensors
from editors.digest import digest_file
from editors.errors import IntegrityError
from editors.loading import INDEX, Checkpoint, load, read_shard
from editors.patch import Dense, LowRank, Patch, edited_tensor
from tests.tiny import FAMILIES, tiny_folder

ONE_FILE = "model.safetensors"


def low_rank(source: Checkpoint, layer: int, seed: int = 0, size: float = 0.1) -> Patch:
    name = source.anatomy.mlp_output_parameter(layer)
    shape = (source.anatomy.hidden_size, source.anatomy.inner_size)
    rows, columns = shape if source.anatomy.layout == "out_in" else shape[::-1]
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randn(rows, 2, generator=generator), torch.randn(2, columns, generator=generator)
    return Patch((LowRank(name, left * size, right),), {"pre_image": {}})


@pytest.fixture
def source(tmp_path: Path) -> Checkpoint:
    return Checkpoint(tiny_folder(tmp_path / "base"))


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_the_patched_model_and_transformers_loads_it(family: str, tmp_path: Path) -> None:
    source = Checkpoint(tiny_folder(tmp_path / "base", family=family))
    patch = low_rank(source, 1)
    baked = bake(source, [patch], tmp_path / "candidate")
    ids = torch.tensor([[5, 9, 200, 31]])
    model = load(source).model
    before = model(ids).logits
    parameter = model.get_parameter(patch.parameters[0])
    with torch.no_grad():
        parameter.copy_(edited_tensor(patch.parameters[0], parameter.detach().clone(), [patch]))
    expected = model(ids).logits
    after = load(baked).model(ids).logits
    assert torch.equal(after, expected)
    assert not torch.allclose(after, before)


def test_a_checkpoint_saved_from_the_body_alone_gets_the_models_names(tmp_path: Path) -> None:
    whole = Checkpoint(tiny_folder(tmp_path / "whole", family="gpt2"))
    bare = Checkpoint(tiny_folder(tmp_path / "bare", family="gpt2"))
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in read_shard(bare.folder / ONE_FILE).items()}
    save_file(tensors, bare.folder / ONE_FILE, {"format": "pt"})
    assert "h.0.mlp.c_proj.weight" in Checkpoint(bare.folder).weight_map
    patch = low_rank(whole, 1)
    assert bake(Checkpoint(bare.folder), [patch], tmp_path / "one").digest == bake(whole, [patch], tmp_path / "two").digest


def halved(folder: Path) -> Checkpoint:
    source = Checkpoint(tiny_folder(folder / "base"))
    tensors = {name: tensor.bfloat16() for name, tensor in read_shard(source.folder / ONE_FILE).items()}
    save_file(tensors, source.folder / ONE_FILE, {"format": "pt"})
    return Checkpoint(source.folder)


def test_half_precision_stays_and_is_rounded_once(tmp_path: Path) -> None:
    half = halved(tmp_path)
    weights = read_shard(half.folder / ONE_FILE)
    patch = low_rank(half, 1)
    name = patch.parameters[0]
    baked = read_shard(bake(half, [patch], tmp_path / "candidate").folder / "model-layer-001.safetensors")[name]
    assert baked.dtype == torch.bfloat16
    assert torch.equal(baked, (weights[name].double() + patch.edits[0].delta(weights[name])).bfloat16())


def test_loss_and_noise_of_the_cast_are_kept_beside_the_folder(tmp_path: Path) -> None:
    half = halved(tmp_path)
    patch = low_rank(half, 1, size=0.003)
    (name,) = patch.parameters
    baked = bake(half, [patch], tmp_path / "candidate")
    before, after = (read_tensors(folder, [name])[name].double() for folder in (half, baked))
    wanted = patch.edits[0].left.double() @ patch.edits[0].right.double()
    share = float(((after - before) * wanted).sum() / (wanted * wanted).sum())
    found = casts(baked)[patch.digest][name]
    assert found.loss == pytest.approx(1 - share, abs=1e-9)
    assert found.noise == pytest.approx(float((after - before - share * wanted).norm() / wanted.norm()), rel=1e-6)
    assert abs(found.loss) < 0.01 < found.noise
    assert casts(bake(half, [], tmp_path / "none")) == {}


def test_an_update_that_rounding_erases_is_not_baked(tmp_path: Path) -> None:
    half = halved(tmp_path)
    patch = low_rank(half, 1, size=1e-5)
    with pytest.raises(IntegrityError) as refused:
        bake(half, [low_rank(half, 0), patch], tmp_path / "candidate")
    assert re.match(rf"rounding to bfloat16 erases 8\d\.\d% of what patch {patch.digest[:12]} changes in "
                    rf"{re.escape(patch.parameters[0])}, more than 1%", refused.value.message)
    assert "edit a float32 copy of the base" in refused.value.hint
    assert not (tmp_path / "candidate").exists()
    bake(Checkpoint(tiny_folder(tmp_path / "single")), [patch], tmp_path / "in-float32")


def test_only_declared_tensors_change_and_other_files_are_copied(source: Checkpoint, tmp_path: Path) -> None:
    patch = low_rank(source, 0)
    baked = bake(source, [patch], tmp_path / "candidate")
    changed = {name for name, digest in baked.tensor_digests.items() if digest != source.tensor_digests[name]}
    assert changed == set(patch.parameters)
    assert baked.carried_files == source.carried_files
    for name in source.carried_files:
        assert (baked.folder / name).read_bytes() == (source.folder / name).read_bytes()


def test_without_patches_the_model_keeps_its_digest(source: Checkpoint, tmp_path: Path) -> None:
    assert bake(source, [], tmp_path / "layered").digest == source.digest


def test_one_shard_a_layer_with_the_standard_index(source: Checkpoint, tmp_path: Path) -> None:
    baked = bake(source, [], tmp_path / "layered")
    layers = [f"model-layer-{layer:03d}.safetensors" for layer in range(source.anatomy.layer_count)]
    assert baked.shards == (*layers, REST)
    index = json.loads((baked.folder / INDEX).read_text())
    sizes = [tensor.nbytes for tensor in (load(baked).model.state_dict()[name] for name in index["weight_map"])]
    assert index["metadata"]["total_size"] == sum(sizes)


def test_untouched_shards_are_hard_links_and_the_source_stays(source: Checkpoint, tmp_path: Path) -> None:
    layered = bake(source, [], tmp_path / "layered")
    before = {shard: digest_file(layered.folder / shard) for shard in layered.shards}
    baked = bake(layered, [low_rank(source, 1)], tmp_path / "candidate")
    same = {shard for shard in baked.shards if os.path.samefile(layered.folder / shard, baked.folder / shard)}
    assert set(baked.shards) - same == {"model-layer-001.safetensors"}
    assert {shard: digest_file(layered.folder / shard) for shard in layered.shards} == before


def test_the_bytes_do_not_depend_on_the_sources_layout(source: Checkpoint, tmp_path: Path) -> None:
    patches = [low_rank(source, 0), low_rank(source, 2, seed=1)]
    layered = bake(source, [], tmp_path / "layered")
    first, second = bake(source, patches, tmp_path / "one"), bake(layered, patches, tmp_path / "two")
    assert first.digest == second.digest
    for name in (*first.shards, INDEX):
        assert digest_file(first.folder / name) == digest_file(second.folder / name), name


def test_without_hard_links_shards_are_copied(
        source: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layered = bake(source, [], tmp_path / "layered")

    def refuse(*_: object) -> None:
        raise OSError("no hard links on this file system")

    monkeypatch.setattr(os, "link", refuse)
    baked = bake(layered, [low_rank(source, 1)], tmp_path / "candidate")
    monkeypatch.undo()
    assert baked.digest == bake(layered, [low_rank(source, 1)], tmp_path / "linked").digest
    assert not os.path.samefile(layered.folder / REST, baked.folder / REST)


def test_order_of_the_stack_counts_and_pre_images_are_checked(source: Checkpoint, tmp_path: Path) -> None:
    first = low_rank(source, 1)
    name = first.parameters[0]
    middle = bake(source, [first], tmp_path / "middle")
    second = Patch(low_rank(source, 1, seed=5).edits, {"pre_image": {name: middle.tensor_digests[name]}})
    assert bake(source, [first, second], tmp_path / "both").digest == bake(middle, [second], tmp_path / "again").digest
    with pytest.raises(IntegrityError, match="is not the tensor this patch was made for"):
        bake(source, [second, first], tmp_path / "swapped")
    assert not (tmp_path / "swapped").exists()


def test_a_parameter_the_checkpoint_lacks_is_refused_by_name(source: Checkpoint, tmp_path: Path) -> None:
    patch = Patch((Dense("model.layers.9.mlp.down_proj.weight", torch.ones(2, 2)),))
    with pytest.raises(IntegrityError, match=r"changes model\.layers\.9\.mlp\.down_proj\.weight, which .* not hold"):
        bake(source, [patch], tmp_path / "candidate")


def test_a_failed_bake_leaves_nothing(source: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import editors.bake

    written: list[Path] = []
    real = editors.bake.save_file

    def full_disk(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(path)
        real(tensors, path, metadata)

    monkeypatch.setattr(editors.bake, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        bake(source, [low_rank(source, 0)], tmp_path / "out" / "candidate")
    assert written
    assert list((tmp_path / "out").iterdir()) == []


def test_a_finished_folder_is_returned_and_another_stack_refused(source: Checkpoint, tmp_path: Path) -> None:
    patch = low_rank(source, 1)
    first = bake(source, [patch], tmp_path / "candidate")
    before = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    assert bake(source, [patch], tmp_path / "candidate").digest == first.digest
    assert {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before
    with pytest.raises(IntegrityError, match="holds another stack of patches"):
        bake(source, [low_rank(source, 1, seed=9)], tmp_path / "candidate")
    (first.folder / REST).unlink()
    with pytest.raises(IntegrityError, match="is not a baked model"):
        bake(source, [patch], tmp_path / "candidate")


def test_a_corrupt_shard_is_named(source: Checkpoint, tmp_path: Path) -> None:
    layered = bake(source, [], tmp_path / "layered")
    shard = layered.folder / "model-layer-001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(IntegrityError, match=r"model-layer-001\.safetensors is not a valid safetensors file"):
        bake(layered, [low_rank(source, 1)], tmp_path / "candidate")


PEAKS = """
import re, sys
from pathlib import Path
import torch
from editors.bake import bake
from editors.loading import Checkpoint
from editors.patch import LowRank, Patch

def peak(source, target):
    draw = torch.Generator().manual_seed(0)
    names = [source.anatomy.mlp_output_parameter(layer) for layer in range(source.anatomy.layer_count)]
    patch = Patch(tuple(LowRank(name, torch.randn(256, 2, generator=draw), torch.randn(2, 4096, generator=draw))
                        for name in names))
    Path("/proc/self/clear_refs").write_text("5")
    bake(source, [patch], target)
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

few, many, out = map(Path, sys.argv[1:])
peak(Checkpoint(few), out / "warm")
print(peak(Checkpoint(few), out / "few"), peak(Checkpoint(many), out / "many"))
"""
"""Bakes in a process of its own and prints the peak of its resident memory, set back before each bake."""


@pytest.mark.parametrize("layout", ["a file a layer", "one file"])
def test_peak_memory_does_not_grow_with_the_number_of_layers(layout: str, tmp_path: Path) -> None:
    """Every layer is edited; 36 layers more, of 12 MiB each, may not cost the memory of one."""
    few, many = (wide(tmp_path / f"base-{layers}", layers, layout) for layers in (4, 40))
    # what is freed is given back at once, so that the peak is that of the tensors alive
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    printed = subprocess.run([sys.executable, "-c", PEAKS, str(few), str(many), str(tmp_path)], capture_output=True, text=True,
                             check=True, env=environment).stdout
    peaks = [int(peak) for peak in printed.split()]
    layer_bytes = 3 * 256 * 4096 * 4
    assert peaks[1] - peaks[0] < layer_bytes


def wide(folder: Path, layers: int, layout: str) -> Path:
    """A checkpoint of equal, wide layers; the other tensors of a model are not needed for baking."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({
        "model_type": "llama", "hidden_size": 256, "intermediate_size": 4096, "num_hidden_layers": layers,
        "num_attention_heads": 4, "vocab_size": 512}))
    shapes = {"down_proj": (256, 4096), "up_proj": (4096, 256), "gate_proj": (4096, 256)}
    shards: dict[str, dict[str, torch.Tensor]] = {}
    for layer in range(layers):
        shard = ONE_FILE if layout == "one file" else f"model-layer-{layer:03d}.safetensors"
        draw = torch.Generator().manual_seed(layer)
        shards.setdefault(shard, {}).update({f"model.layers.{layer}.mlp.{name}.weight": torch.randn(shape, generator=draw)
                                             for name, shape in shapes.items()})
    for shard, tensors in shards.items():
        save_file(tensors, folder / shard, {"format": "pt"})
    return folder
