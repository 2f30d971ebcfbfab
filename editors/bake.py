"""From a checkpoint and a stack of patches to a plain Hugging Face folder, one shard at a time.

The folder holds one safetensors file per layer and one for the rest, with the standard index. So an edit that touches
five layers writes five files: the others are hard links to the source's, where the source is in this layout already.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from editors.cast import Cast, cast_of, require_kept
from editors.digest import digest_document
from editors.errors import IntegrityError
from editors.loading import INDEX, Checkpoint
from editors.patch import Patch, edited_tensor

REST = "model-rest.safetensors"
STACK = ".stack"
"""Names the patches a folder was baked from; not part of the model, so not carried and not in its digest."""
CAST = ".cast"
"""What rounding did to each update, beside `STACK`; no part of the model either."""


def bake(source: Checkpoint, patches: Sequence[Patch], target: Path) -> Checkpoint:
    """Write `source` under the ordered stack of `patches` to the folder `target`.

    Peak memory is one shard and some float64 copies of one parameter. The same input gives the same bytes. The folder
    appears whole or not at all; when it is there already with this stack, it is returned as it is. What rounding did to
    each update is kept beside it: see `casts`.

    Raises:
        IntegrityError: a patch names a parameter the source lacks or was made for another value of it; rounding to the
            parameter's dtype erases over 1% of an update; or `target` is there and is not the folder of this stack.
    """
    stack = digest_document([patch.digest for patch in patches])
    if target.exists() and any(target.iterdir()):
        return _finished(target, stack)
    known = set(parameter_names(source).values())
    for patch in patches:
        missing = [name for name in patch.parameters if name not in known]
        if missing:
            raise IntegrityError(f"patch {patch.digest[:12]} changes {missing[0]}, which {source.folder} does not hold",
                                 "apply the patch on its own base")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".baking-"))
    try:
        found = _write(source, patches, scratch)
        (scratch / CAST).write_text(json.dumps(found, indent=1, sort_keys=True))
        (scratch / STACK).write_text(stack)
        scratch.chmod(0o755)
        os.replace(scratch, target)
    except OSError:
        # Another process may have put the same folder there first.
        if not (target / STACK).exists():
            raise
        return _finished(target, stack)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Checkpoint(target)


def is_whole(baked: Checkpoint, digest: str) -> bool:
    """Whether a folder that `bake` wrote still is the checkpoint of this digest, its index the one that was written."""
    if not baked.has_digest(digest):
        return False
    names = {shard: tuple(sorted(name for name, place in baked.weight_map.items() if place == shard)) for shard in baked.shards}
    return (baked.folder / INDEX).exists() and (baked.folder / INDEX).read_bytes() == _index(baked.folder, names)


def casts(baked: Checkpoint) -> dict[str, dict[str, Cast]]:
    """Patch digest -> parameter -> what rounding to the stored dtype did to the update, of a folder that `bake` wrote."""
    kept = json.loads((baked.folder / CAST).read_text())
    return {patch: {name: Cast(**cast) for name, cast in found.items()} for patch, found in kept.items()}


def parameter_names(source: Checkpoint) -> dict[str, str]:
    """Name in the source's files -> name in the model.

    They differ in checkpoints that were saved from the body alone, such as GPT-2's own: there the first part is missing.
    """
    anatomy = source.anatomy
    body, _, blocks = anatomy.blocks.partition(".")
    is_bare = not any(name.startswith(f"{anatomy.blocks}.") for name in source.weight_map) and any(
        name.startswith(f"{blocks}.") for name in source.weight_map)
    return {name: f"{body}.{name}" if is_bare and not name.startswith(f"{anatomy.head}.") else name
            for name in source.weight_map}


def layered_layout(source: Checkpoint) -> dict[str, tuple[str, ...]]:
    """Shard file name -> sorted names of its parameters, one shard per layer and one for the rest."""
    layout: dict[str, list[str]] = {}
    for name in sorted(parameter_names(source).values()):
        layer = source.anatomy.layer_of(name)
        layout.setdefault(REST if layer is None else f"model-layer-{layer:03d}.safetensors", []).append(name)
    return {shard: tuple(names) for shard, names in sorted(layout.items())}


def _finished(target: Path, stack: str) -> Checkpoint:
    checkpoint = Checkpoint(target)
    marker = target / STACK
    if not marker.exists() or not all((target / shard).exists() for shard in checkpoint.shards):
        raise IntegrityError(f"{target} is there, but is not a baked model", "remove it, or choose another folder")
    if marker.read_text() != stack:
        raise IntegrityError(f"{target} holds another stack of patches", "remove it, or choose another folder")
    return checkpoint


def _write(source: Checkpoint, patches: Sequence[Patch], folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Write all files; returns patch digest -> parameter -> the fields of its `Cast`."""
    named = [(patch.digest, patch) for patch in patches]
    found: dict[str, dict[str, dict[str, float]]] = {digest: {} for digest, _ in named}
    touched = {name for patch in patches for name in patch.parameters}
    layout = layered_layout(source)
    held = _tensors_by_shard(source.weight_map)
    for shard, names in layout.items():
        if held.get(shard) == names and touched.isdisjoint(names):
            _link(source.folder / shard, folder / shard)
        else:
            _write_shard(folder / shard, read_tensors(source, names), named, found)
    for name in source.carried_files:
        shutil.copyfile(source.folder / name, folder / name)
    (folder / INDEX).write_bytes(_index(folder, layout))
    return found


def _index(folder: Path, layout: Mapping[str, Sequence[str]]) -> bytes:
    index = {"metadata": {"total_size": sum(_data_bytes(folder / shard) for shard in layout)},
             "weight_map": {name: shard for shard, names in layout.items() for name in names}}
    return (json.dumps(index, indent=2, sort_keys=True) + "\n").encode()


def _write_shard(path: Path, tensors: dict[str, torch.Tensor], named: Sequence[tuple[str, Patch]],
                 found: Mapping[str, dict[str, dict[str, float]]]) -> None:
    for digest, patch in named:
        for name in patch.parameters:
            if name in tensors:
                before, after = tensors[name], edited_tensor(name, tensors[name], [patch])
                cast = cast_of(before, after, patch.delta(name, before))
                require_kept(name, before.dtype, digest, cast)
                found[digest][name] = asdict(cast)
                tensors[name] = after
    # Readers of the format want to be told which framework wrote the tensors.
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})


def _tensors_by_shard(weight_map: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    held: dict[str, list[str]] = {}
    for name in sorted(weight_map):
        held.setdefault(weight_map[name], []).append(name)
    return {shard: tuple(names) for shard, names in held.items()}


def read_tensors(source: Checkpoint, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Some of a checkpoint's tensors, by their names in the model; nothing else is read.

    Raises:
        IntegrityError: a file is missing or not valid safetensors.
    """
    tensors = {}
    stored = {name: kept for kept, name in parameter_names(source).items()}
    for name in names:
        path = source.folder / source.weight_map[stored[name]]
        try:
            with safe_open(path, framework="pt") as shard:
                tensors[name] = shard.get_tensor(stored[name])
        except (OSError, SafetensorError) as error:
            raise IntegrityError(f"{path} is not a valid safetensors file: {error}", "fetch the model again") from error
    return tensors


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:
        # Another file system, or one without hard links.
        shutil.copyfile(source, target)


def _data_bytes(shard: Path) -> int:
    with shard.open("rb") as stream:
        header = int.from_bytes(stream.read(8), "little")
    return shard.stat().st_size - 8 - header
