"""Which editor carries out an order, with which options: the sheet's over the model's calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import editors
from editors.calibration import calibration_for
from editors.contract import EditBatch, Editor
from editors.errors import ConfigError
from editors.loading import Checkpoint
from editors.prompts import PositionRule
from tasks.house import House
from tasks.records import Order

DEFAULTS = {"update": "memit", "removal": "memit", "forget": "redact", "detoxify": "contrast", "debias": "lsdm"}
"""What `auto` is, by purpose. MEMIT serves one request and thousands."""


def default_method(batch: EditBatch) -> str:
    """What `auto` is for a batch: where plain text is shown as it must not go on, every position counts."""
    shown = [request.form == "plain" and bool(request.unsafe) and all(one.toxic for one in request.unsafe)
             for request in batch.detoxifies]
    return "soften" if shown and all(shown) else DEFAULTS[batch.purpose]


@dataclass(frozen=True)
class ChosenMethod:
    """An editor ready to plan, and where it edits."""

    editor: Editor
    options: Mapping[str, Any]
    """Calibrated options with the sheet's over them."""
    layers: tuple[int, ...]
    position: PositionRule
    source: str
    """Where layers and options come from, for people."""
    is_measured: bool
    """Whether they were measured on this very model."""

    @property
    def name(self) -> str:
        """The method's registered name."""
        return self.editor.name


def method_of(order: Order, house: House) -> ChosenMethod:
    """The sheet's method with calibrated defaults.

    Raises:
        ConfigError: the method or an option is unknown or outside its range, or the method is for another purpose.
    """
    name = default_method(order.batch) if order.method == "auto" else order.method
    kind = editors.get(name)
    if order.batch.purpose not in kind.purposes:
        raise ConfigError(f"the method {name} is not for the purpose {order.batch.purpose}", "method: auto")
    chats = [request.is_chat for request in order.batch.updates]
    chats += [request.form == "chat" for request in order.batch.detoxifies]
    form = "chat" if chats and all(chats) else "plain"
    found = calibration_for(name, order.base_digest, Checkpoint(order.base_folder).anatomy, form, house.calibrations)
    options = {**found.options, **order.options}
    position = order.position if order.position != "auto" else options.get("position", "auto")
    layers = tuple(order.layers or found.layers)
    is_calibrated = options == found.options and layers == found.layers
    source = found.source if is_calibrated else f"the sheet, and for the rest: {found.source}"
    return ChosenMethod(kind.from_options(options), options, layers, position, source, found.is_measured and is_calibrated)
