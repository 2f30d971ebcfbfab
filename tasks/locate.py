"""Order -> Located: edit layers and positions, with evidence of where the model holds what the order is about."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editors.contract import Location
from tasks.house import House
from tasks.method import ChosenMethod, method_of
from tasks.records import Located, Order

if TYPE_CHECKING:
    from editors.loading import LoadedModel
    from editors.locate.privacy_neurons import DetectorConfig


def locate(order: Order, house: House) -> Located:
    """Where the parent holds what the order is about; found again when it was located before.

    Neurons of a secret are sought with the method's own detector. A method that needs none has them as evidence alone, by
    default options, and a sheet that wants no evidence goes without.

    Raises:
        ConfigError: a layer of the sheet is not one of the model's.
        SheetError: a request has no such position.
    """
    method = method_of(order, house)
    detector = _detector(order, method)

    def work(folder: Path) -> dict[str, Any]:
        from editors.loading import Checkpoint, load

        model = load(Checkpoint(order.parent_folder), house.device)
        return _found(model, order, method, detector, folder, house).model_dump(mode="json")

    inputs = {"batch": order.batch.digest, "layers": order.layers, "calibrated": method.layers, "trace": order.trace,
              "position": method.position, **({"detector": asdict(detector)} if detector else {})}
    done = house.workspace.run("locate-2", inputs, work)
    return Located(folder=done.folder, digest=done.digest, location=Location.model_validate(done.document))


def _found(model: LoadedModel, order: Order, method: ChosenMethod, detector: DetectorConfig | None, folder: Path,
           house: House) -> Location:
    """The place, by what the order's purpose leaves in a model."""
    from editors import locate as seek

    where = (model, order.batch, method.layers, order.layers)
    if detector:
        return seek.find_neurons(*where, folder, house.progress, detector)
    if not order.trace or order.batch.forgets:
        return seek.place(*where, method.position)
    if any(request.unsafe for request in order.batch.detoxifies):
        return seek.find_contrast(*where, folder)
    if order.batch.detoxifies:
        return seek.find_values(*where, house.statistics, folder)
    if order.batch.debiases:
        return seek.find_lean(*where, folder, house.progress)
    return seek.locate(*where, method.position, folder, house.progress)


def _detector(order: Order, method: ChosenMethod) -> DetectorConfig | None:
    """How the neurons of a secret are found; None where none are sought."""
    from editors.locate.privacy_neurons import DetectorConfig, ScalesNeurons

    if not order.batch.forgets:
        return None
    if isinstance(method.editor, ScalesNeurons):
        return method.editor.detector
    return DetectorConfig() if order.trace else None
