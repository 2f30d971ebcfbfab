"""Order -> a later edit that has nothing to do with it: what a line goes through after a secret was withdrawn.

It is planned on the order's parent, so that parent and candidate are asked under one and the same patch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.house import House
from tasks.records import Order

if TYPE_CHECKING:
    from editors.patch import Patch

METHOD = "memit"
FACTS = 4
"""Facts of the house's own list that it teaches wrongly."""


def later_edit(order: Order, house: House) -> Patch:
    """The patch; found again when it was planned before.

    Raises:
        ArchitectureError: the family cannot be edited in closed form.
        IntegrityError: the search met numbers that are not finite.
    """
    import editors
    from editors.calibration import calibration_for
    from editors.contract import EditBatch, Location
    from editors.known_facts import shipped_facts
    from editors.loading import Checkpoint, load
    from editors.patch import load_patch
    from tasks.exam import requests_of

    parent = Checkpoint(order.parent_folder)
    found = calibration_for(METHOD, order.base_digest, parent.anatomy, measured=house.calibrations)
    batch = EditBatch(purpose="update", base_digest=order.base_digest, parent_digest=order.parent_digest,
                      requests=requests_of(shipped_facts(), FACTS))
    place = Location(layers=found.layers, positions={}, source="calibration")

    def work(folder: Path) -> dict[str, Any]:
        editor = editors.get(METHOD).from_options(found.options)
        patch = editor.plan(load(parent, house.device), batch, place, house.statistics, house.progress,
                            [load_patch(path) for path in order.stack])
        return {"patch": patch.save(folder)}

    inputs = {"batch": batch.digest, "layers": found.layers, "options": dict(found.options), "stack": order.patch_digests}
    done = house.workspace.run("later-1", inputs, work)
    return load_patch(done.folder, done.document["patch"])
