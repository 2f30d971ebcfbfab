"""Order and Located -> Edited: plan the patch, keep it, and bake the candidate that it makes of the parent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from editors.errors import IntegrityError
from tasks.house import House, model_folder
from tasks.method import method_of
from tasks.records import Edited, Located, Order


def edit(order: Order, located: Located, house: House) -> Edited:
    """The patch that carries out the order, and the candidate on disk; both found again when they were made before.

    Raises:
        ConfigError: an option of the method is unknown or outside its range.
        IntegrityError: the search met numbers that are not finite.
    """
    method = method_of(order, house)

    def work(folder: Path) -> dict[str, Any]:
        from editors.loading import Checkpoint, load
        from editors.patch import load_patch

        model = load(Checkpoint(order.parent_folder), house.device)
        earlier = [load_patch(folder) for folder in order.stack]
        patch = method.editor.plan(model, order.batch, located.location, house.statistics, house.progress, earlier)
        return {"patch": patch.save(folder)}

    inputs = {"batch": order.batch.digest, "method": method.name, "options": dict(method.options),
              "positions": dict(located.location.positions), "layers": located.location.layers,
              "neurons": [neurons.model_dump() for neurons in located.location.neurons], "stack": order.patch_digests}
    done = house.workspace.run("edit-3", inputs, work)
    folder, checkpoint = _bake(order, done.folder, done.document["patch"], house)
    return Edited(folder=done.folder, patch_digest=done.document["patch"],
                  patch_bytes=sum((done.folder / name).stat().st_size for name in ("patch.json", "patch.safetensors")),
                  candidate_folder=folder, candidate_digest=checkpoint)


def _bake(order: Order, patch_folder: Path, patch_digest: str, house: House) -> tuple[Path, str]:
    """The candidate's folder and checkpoint digest; a folder damaged since it was first baked is baked again."""
    from editors.bake import bake, is_whole
    from editors.loading import Checkpoint
    from editors.patch import load_patch

    target = model_folder(house, order.base_digest, (*order.patch_digests, patch_digest))

    def work(folder: Path) -> dict[str, Any]:
        shutil.rmtree(target, ignore_errors=True)
        made = bake(Checkpoint(order.parent_folder), [load_patch(patch_folder, patch_digest)], target)
        (folder / "checkpoint.json").write_text(json.dumps({"digest": made.digest}))
        return {"checkpoint": made.digest}

    inputs = {"parent": order.parent_digest, "patch": patch_digest}
    done = house.workspace.run("bake-1", inputs, work)
    checkpoint = done.document["checkpoint"]
    if not is_whole(Checkpoint(target), checkpoint):
        again = work(done.folder)["checkpoint"]
        if again != checkpoint:
            raise IntegrityError(f"the candidate in {target} comes out as {again[:12]}, before as {checkpoint[:12]}",
                                 f"remove {done.folder} and run the command again")
    return target, checkpoint
