"""Order -> Located: edit layers and positions with a causal trace as evidence, or the neurons that raise a secret."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from editors.contract import Location
from tasks.house import House
from tasks.method import method_of
from tasks.records import Located, Order


def locate(order: Order, house: House) -> Located:
    """Where the parent holds what the order is about; found again when it was located before.

    Neurons are sought with the method's own detector. A method that needs none has them as evidence alone, by default
    options, and a sheet that wants no evidence goes without.

    Raises:
        ConfigError: a layer of the sheet is not one of the model's.
        SheetError: a request has no such position.
    """
    from editors.locate.privacy_neurons import DetectorConfig, ScalesNeurons

    method, detector = method_of(order, house), None
    if order.batch.forgets and isinstance(method.editor, ScalesNeurons):
        detector = method.editor.detector
    elif order.batch.forgets and order.trace:
        detector = DetectorConfig()

    def work(folder: Path) -> dict[str, Any]:
        from editors.loading import Checkpoint, load
        from editors.locate import find_contrast, find_lean, find_neurons, place
        from editors.locate import locate as find

        model = load(Checkpoint(order.parent_folder), house.device)
        if detector:
            found = find_neurons(model, order.batch, method.layers, order.layers, folder, house.progress, detector)
            return found.model_dump(mode="json")
        if order.batch.detoxifies and order.trace:
            return find_contrast(model, order.batch, method.layers, order.layers, folder).model_dump(mode="json")
        if order.batch.debiases and order.trace:
            found = find_lean(model, order.batch, method.layers, order.layers, folder, house.progress)
            return found.model_dump(mode="json")
        given = (model, order.batch, method.layers, order.layers, method.position)
        location = find(*given, folder, house.progress) if order.trace else place(*given)
        return location.model_dump(mode="json")

    inputs = {"batch": order.batch.digest, "layers": order.layers, "calibrated": method.layers, "trace": order.trace,
              "position": method.position, **({"detector": asdict(detector)} if detector else {})}
    done = house.workspace.run("locate-1", inputs, work)
    return Located(folder=done.folder, digest=done.digest, location=Location.model_validate(done.document))
