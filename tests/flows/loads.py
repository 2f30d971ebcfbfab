"""What a worker tells of itself."""

from __future__ import annotations

import os
import time

from editors import loading
from editors.loading import LoadedModel

_first: list[int] = []


def seen_by(model: LoadedModel, part: int) -> tuple[int, int, int]:
    """The part, the process, and how many models it has had since its first part."""
    time.sleep(0.05)
    if id(model) not in _first:
        _first.append(id(model))
    assert len(loading._resident) == 1
    return part, os.getpid(), len(_first)
