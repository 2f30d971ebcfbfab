"""Order -> Located: edit layers and positions, with evidence of where the model holds what the order is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editors.contract import Location
from editors.locators import AUTO, locator_of
from tasks.house import House
from tasks.method import ChosenMethod, method_of
from tasks.records import Located, Order

if TYPE_CHECKING:
    from editors.loading import LoadedModel
    from editors.locate.privacy_neurons import DetectorConfig


def locate(order: Order, house: House, locator: str = AUTO) -> Located:
    """Where the parent holds what the order is about, as the locator sees it; found again when it was located before.

    Neurons of a secret are sought with the method's own detector. A method that needs none has them as evidence alone, by
    default options, and a sheet that wants no evidence goes without.

    Raises:
        ConfigError: a layer of the sheet is not one of the model's, or the locator is not for what the sheet asks.
        SheetError: a request has no such position.
    """
    method, locator = method_of(order, house), locator_of(locator, order.batch)
    detector = _detector(order, method)

    def work(folder: Path) -> dict[str, Any]:
        from editors.loading import Checkpoint, load

        model = load(Checkpoint(order.parent_folder), house.device)
        return _found(model, order, method, locator, detector, folder, house).model_dump(mode="json")

    inputs = {"batch": order.batch.digest, "layers": order.layers, "calibrated": method.layers, "trace": order.trace,
              "locator": locator,
              "position": method.position, **({"detector": asdict(detector)} if detector else {})}
    done = house.workspace.run("locate-3", inputs, work)
    return Located(folder=done.folder, digest=done.digest, location=Location.model_validate(done.document))


def _found(model: LoadedModel, order: Order, method: ChosenMethod, locator: str, detector: DetectorConfig | None, folder: Path,
           house: House) -> Location:
    """The place, with what the locator sees there."""
    from editors import locate as seek

    where = (model, order.batch, method.layers, order.layers)
    if detector:
        return seek.find_neurons(*where, folder, house.progress, detector)
    if not order.trace or order.batch.forgets:
        return seek.place(*where, method.position)
    finders: dict[str, Callable[[], Location]] = {
        "causal_trace": lambda: seek.locate(*where, method.position, folder, house.progress),
        "knowledge_neurons": lambda: seek.find_knowledge(*where, folder, house.progress),
        "value_reading": lambda: seek.find_values(*where, house.statistics, folder),
        "hidden_contrast": lambda: seek.find_contrast(*where, folder),
        "bias_trace": lambda: seek.find_lean(*where, folder, house.progress)}
    return finders[locator]()


def _detector(order: Order, method: ChosenMethod) -> DetectorConfig | None:
    """How the neurons of a secret are found; None where none are sought."""
    from editors.locate.privacy_neurons import DetectorConfig, ScalesNeurons

    if not order.batch.forgets:
        return None
    if isinstance(method.editor, ScalesNeurons):
        return method.editor.detector
    return DetectorConfig() if order.trace else None
