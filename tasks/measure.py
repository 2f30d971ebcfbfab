"""Edited -> Measured: the parent and the candidate as re-read from disk, each observed alone under its own digest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from editors.contract import updates_of
from editors.digest import digest_file
from tasks.examine import asked, examined
from tasks.house import House
from tasks.records import Edited, Measured, Order
from validations.contract import Measurements

if TYPE_CHECKING:
    from validations.observation import Observation, Scope


def measure(order: Order, edited: Edited, house: House) -> Measured:
    """Everything the gate needs to know about the candidate; a baseline observed before is used again.

    Raises:
        IntegrityError: candidate and parent are one model, or a folder is damaged.
    """
    return measure_folder(order, edited.candidate_folder, (edited.folder,), house)


def measure_folder(order: Order, candidate: Path, patches: tuple[Path, ...], house: House) -> Measured:
    """Measure the model in `candidate` against the order's parent; `patches` lie between the two, in order."""

    def work(folder: Path) -> dict[str, Any]:
        from editors.loading import Checkpoint
        from editors.patch import Patch, load_patch
        from validations.comparing import compare
        from validations.probes.integrity import inspect

        old, new = Checkpoint(order.parent_folder), Checkpoint(candidate)
        scope = _scope(order)
        before = _observed(old, order, None, house)
        after = _observed(new, order, before, house)
        merged = Patch(tuple(edit for patch in patches for edit in load_patch(patch).edits))
        seen = inspect(Checkpoint(order.base_folder), old, new, merged, house.progress)
        more = examined(order, new, house)
        found = compare(before, after, order.batch, scope, seen, more.rows, more.said)
        (folder / "measurements.json").write_text(found.model_dump_json())
        return {"measurements": found.digest, "superseded": [request.id for request in scope.superseded]}

    from editors.loading import Checkpoint
    from validations.observation import observation_key

    key = observation_key(Checkpoint(candidate).digest, _scope(order))
    between = [digest_file(folder / "patch.json") for folder in patches]
    inputs: dict[str, Any] = {"batch": order.batch.digest, "candidate": key, "patches": between, "base": order.base_digest}
    if more := asked(order, house):
        inputs["examination"] = more
    done = house.workspace.run("measure-2", inputs, work)
    return Measured(folder=done.folder, digest=done.document["measurements"])


def baseline(order: Order, house: House) -> Observation:
    """What the parent says to everything in the order's scope."""
    from editors.loading import Checkpoint

    return _observed(Checkpoint(order.parent_folder), order, None, house)


def read_measurements(measured: Measured) -> Measurements:
    """The measurements on disk."""
    return Measurements.model_validate_json((measured.folder / "measurements.json").read_text())


def _scope(order: Order) -> Scope:
    from validations.observation import Scope

    return Scope.of(order.batch.updates, updates_of(order.history))


def _observed(checkpoint: Any, order: Order, reference: Observation | None, house: House) -> Observation:
    from editors.loading import load
    from validations.observation import Observation, observation_key
    from validations.observing import observe
    from validations.quieting import quieted

    scope, secrets = _scope(order), order.batch.forgets

    def work(folder: Path) -> dict[str, Any]:
        seen = quieted(observe(load(checkpoint, house.device), scope, reference=reference, progress=house.progress), secrets)
        (folder / "observation.json").write_text(seen.model_dump_json())
        return {"model": seen.model_digest}

    inputs = {"key": observation_key(checkpoint.digest, scope, reference), "without": [request.seal for request in secrets]}
    done = house.workspace.run("observe-2", inputs, work)
    return Observation.model_validate_json((done.folder / "observation.json").read_text())
