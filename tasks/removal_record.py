"""What a version that took an edit out keeps of it in the store; read without a model's libraries."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tasks import channel as channels

if TYPE_CHECKING:
    from tasks.house import House
    from tasks.manifest import Contents

RECORD = "removal.json"
"""Artefact of a version that was made by taking an edit out: what, why, and the batch that was judged."""


def read_record(contents: Contents, house: House) -> dict[str, Any] | None:
    """What a version took out, by whom, why, and the batch that was judged; None for a version that brought an edit."""
    blob = contents.artefacts.get(RECORD)
    if blob is None:
        return None
    return dict(json.loads(channels.read_document(house.store, blob, f"the removal of {contents.version}")))
