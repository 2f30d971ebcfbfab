"""Order -> Located: edit layers and positions, with evidence of where the model holds what the order is about."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editors.contract import Location
from editors.loading import Checkpoint
from editors.locators import AUTO, locator_of
from tasks.house import House
from tasks.method import ChosenMethod, method_of
from tasks.records import Located, Order

if TYPE_CHECKING:
    from editors.loading import LoadedModel
    from editors.locate.privacy_neurons import DetectorConfig
    from editors.prompts import PositionRule
    from tasks.layer_search import Sought


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
        from editors.loading import load

        model = load(Checkpoint(order.parent_folder), house.device)
        layers = sought[0].best.layers if sought else method.layers
        found = _found(model, order, layers, method.position, locator, detector, folder, house)
        return (_with_search(found, *sought, folder) if sought else found).model_dump(mode="json")

    sought = _sought(order, method, house) if order.seeks_layers else None
    inputs = {"batch": order.batch.digest, "layers": order.layers, "calibrated": method.layers, "trace": order.trace,
              "locator": locator,
              "position": method.position, **({"detector": asdict(detector)} if detector else {}),
              **({"sought": sought[0].model_dump(mode="json")} if sought else {})}
    done = house.workspace.run("locate-3", inputs, work)
    return Located(folder=done.folder, digest=done.digest, location=Location.model_validate(done.document))


def _sought(order: Order, method: ChosenMethod, house: House) -> tuple[Sought, Path]:
    """The search for layers, with its folder. On the base: what a line of edits stands on, so that it is paid once."""
    from tasks.layer_search import seek_layers

    return seek_layers(order.base, Checkpoint(order.base_folder), method.name, method.layers, method.options, house)


def _with_search(found: Location, sought: Sought, searched: Path, folder: Path) -> Location:
    """The location with the search as evidence before the locator's, its files beside the others."""
    from tasks.layer_evidence import evidence_of

    evidence = evidence_of(sought)
    for item in evidence:
        shutil.copy(searched / item.path, folder / item.path)
    return found.model_copy(update={"source": "sweep", "evidence": (*evidence, *found.evidence)})


def _found(model: LoadedModel, order: Order, layers: Sequence[int], position: PositionRule, locator: str,
           detector: DetectorConfig | None, folder: Path, house: House) -> Location:
    """The place, with what the locator sees there."""
    from editors import locate as seek

    where = (model, order.batch, layers, order.layers)
    if detector:
        return seek.find_neurons(*where, folder, house.progress, detector)
    if not order.trace or order.batch.forgets:
        return seek.place(*where, position)
    finders: dict[str, Callable[[], Location]] = {
        "causal_trace": lambda: seek.locate(*where, position, folder, house.progress),
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
