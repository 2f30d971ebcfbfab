"""Which layers to edit and with what options, per model: measured where we measured, else by depth and said so.

Data in `calibrations/*.yaml`, one file a model, which names the digest of its checkpoint. What a sweep found on this
machine lies in a folder of its own, named by that digest, and counts where we ship nothing for the method. A model of the
same shapes as one that was measured (its fine-tuned descendant, mostly) has that one's values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from editors.anatomy import Anatomy
from editors.errors import IntegrityError

FOLDER = Path(__file__).with_name("calibrations")
ONE_LAYER = ("rome", "finetune")
AT_A_FIFTH = ("lsdm",)
ALL_LAYERS = ("depn", "dinm", "promote_values", "soften")
MIDDLE_LAYERS = ("contrast",)
UPPER_LAYERS = ("dama",)


@dataclass(frozen=True)
class Calibration:
    """Defaults for one method on one model and one form of request."""

    layers: tuple[int, ...]
    options: Mapping[str, Any]
    """For the method's `from_options`."""
    source: str
    """Where the values come from, for people."""
    is_measured: bool


def calibration_for(method: str, base_digest: str, anatomy: Anatomy, form: str = "plain",
                    measured: Path | None = None) -> Calibration:
    """The calibration of `method` for the base; `form` is "plain" or "chat" requests.

    `measured` is the folder of sweeps on this machine, asked after what ships, and before what was measured on a model of
    the same shapes. A model of unknown shapes gets layers by
    depth: MEMIT the five from one seventh of the depth, ROME one at a sixth (the authors' choices for GPT-J and Llama lie
    there), LSDM the one at a fifth, methods that seek their layer or neurons themselves all, what is written at a
    prompt's end the four from the middle on, DAMA those above two thirds.

    Raises:
        IntegrityError: the file in `measured` cannot be read.
    """
    for entry in (_shipped().get(base_digest, {}), _swept(measured, base_digest) if measured else {}):
        found = entry.get("methods", {}).get(method, {}).get(form)
        if found:
            return Calibration(tuple(found["layers"]), dict(found.get("options", {})), entry["source"], True)
    for entry in _shipped().values():
        found = entry["methods"].get(method, {}).get(form)
        if found and all(getattr(anatomy, name) == size for name, size in entry["shapes"].items()):
            source = f"measured on {entry['model']}, which has the shapes of this model"
            return Calibration(tuple(found["layers"]), dict(found.get("options", {})), source, False)
    return Calibration(_by_depth(method, anatomy.layer_count), {}, "by depth, not measured on this model", False)


def _by_depth(method: str, count: int) -> tuple[int, ...]:
    if method in ALL_LAYERS:
        return tuple(range(count))
    if method in ONE_LAYER:
        return (min(count // 6, count - 1),)
    if method in AT_A_FIFTH:
        # where keys told a meaning from a stereotype best on SmolLM2
        return (count // 5,)
    if method in UPPER_LAYERS:
        # the authors' 21 to 29 of 32: the last quarter but for the very last
        return tuple(range(2 * count // 3, max(count - 2, 2 * count // 3 + 1)))
    first, width = (count // 2, 4) if method in MIDDLE_LAYERS else (count // 7, 5)
    return tuple(range(first, min(first + width, count)))


def calibration_file(measured: Path, base_digest: str) -> Path:
    """Where a sweep keeps what it found for a base."""
    return measured / f"{base_digest}.yaml"


@cache
def _shipped() -> dict[str, dict[str, Any]]:
    entries = [yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml"))]
    return {entry["base_digest"]: entry for entry in entries}


def _swept(measured: Path, base_digest: str) -> dict[str, Any]:
    path = calibration_file(measured, base_digest)
    if not path.exists():
        return {}
    try:
        entry = yaml.safe_load(path.read_text(encoding="utf-8"))
        if entry["base_digest"] == base_digest and entry["source"]:
            return dict(entry)
        raise ValueError(f"it is of the base {entry['base_digest']}")
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise IntegrityError(f"the calibration {path} cannot be read: {error}",
                             f"rm {path}, or suture calibrate MODEL") from error
