"""The model side: read a model, return a `Patch`. `get(name)` finds a method; third parties add theirs by entry point."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from editors.errors import ConfigError

METHODS = {
    "rome": "editors.rome:Rome",
    "memit": "editors.memit:Memit",
    "alphaedit": "editors.alphaedit:AlphaEdit",
    "finetune": "editors.finetune:Finetune",
    "natural": "editors.natural:Natural",
    "ultraedit": "editors.ultraedit:UltraEdit",
    "dama": "editors.dama:Dama",
    "depn": "editors.depn:Depn",
    "lsdm": "editors.lsdm:Lsdm",
    "redact": "editors.redact:Redact",
    "contrast": "editors.contrast:Contrast",
    "dinm": "editors.dinm:Dinm",
    "soften": "editors.soften:Soften",
    "promote_values": "editors.promote_values:PromoteValues",
}
ENTRY_POINT_GROUP = "suture.editors"


def names() -> tuple[str, ...]:
    """Every method that can be asked for, this house's and third parties', sorted."""
    return tuple(sorted({*METHODS, *(entry.name for entry in entry_points(group=ENTRY_POINT_GROUP))}))


def get(name: str) -> Any:
    """The editor class registered as `name`, imported now.

    Raises:
        ConfigError: there is no such method.
    """
    if name in METHODS:
        module, _, attribute = METHODS[name].partition(":")
        return getattr(import_module(module), attribute)
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name == name:
            return entry.load()
    near = get_close_matches(name, names(), 1)
    raise ConfigError(f"method {name!r} is unknown", f"use {near[0]!r}" if near else f"use one of {', '.join(names())}")
