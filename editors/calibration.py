"""Which layers to edit and with what options, per model: measured where we measured, else by depth and said so.

Data in `calibrations/*.yaml`, one file a model, named by the digest of its checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from editors.anatomy import Anatomy

FOLDER = Path(__file__).with_name("calibrations")


@dataclass(frozen=True)
class Calibration:
    """Defaults for one method on one model and one form of request."""

    layers: tuple[int, ...]
    options: Mapping[str, Any]
    """For the method's `from_options`."""
    source: str
    """Where the values come from, for people."""
    is_measured: bool


def calibration_for(method: str, base_digest: str, anatomy: Anatomy, form: str = "plain") -> Calibration:
    """The calibration of `method` for the base; `form` is "plain" or "chat" requests.

    A model we did not measure gets layers by depth: MEMIT the five from one seventh of the depth, ROME one at a sixth
    (the authors' choices for GPT-J and Llama lie there).
    """
    entry = _measured().get(base_digest, {})
    found = entry.get("methods", {}).get(method, {}).get(form)
    if found:
        return Calibration(tuple(found["layers"]), dict(found.get("options", {})), entry["source"], True)
    count = anatomy.layer_count
    first = count // 7
    layers = (min(count // 6, count - 1),) if method == "rome" else tuple(range(first, min(first + 5, count)))
    return Calibration(layers, {}, "by depth, not measured on this model", False)


@cache
def _measured() -> dict[str, dict[str, Any]]:
    entries = [yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml"))]
    return {entry["base_digest"]: entry for entry in entries}
