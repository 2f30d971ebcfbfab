"""What travels between tasks: small frozen records, addresses and digests, never a tensor or a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from editors.contract import EditBatch, EditRequest, Frozen, Location
from validations.contract import Verdict


class Order(Frozen):
    """What is to be done, to what: the sheet, its base, and the parent that the channel stands at."""

    sheet: str
    sheet_digest: str
    model: str
    channel: str
    base: str
    base_folder: Path
    base_digest: str
    parent_version: str | None
    """None when the channel is empty: the parent is the unedited base."""
    parent_folder: Path
    parent_digest: str
    """Checkpoint digest of the parent."""
    stack: tuple[Path, ...]
    """Folders of the parent's patches, in order."""
    patch_digests: tuple[str, ...]
    history: tuple[EditRequest, ...]
    """Every request the line has accepted and no later one replaced."""
    batch: EditBatch
    method: str
    options: Mapping[str, Any]
    layers: tuple[int, ...] | None
    position: Literal["auto", "subject_last", "question_last", "prompt_last"]
    trace: bool
    """Whether a locator runs for its evidence."""
    policy: str | None
    requester: str
    warnings: tuple[str, ...] = ()
    seeks_layers: bool = False
    """Whether the layers are sought by trial edits."""


class Located(Frozen):
    """Where to edit, with its evidence on disk."""

    folder: Path
    digest: str
    location: Location


class Edited(Frozen):
    """A patch on disk, and the candidate it makes: the parent's folder under it."""

    folder: Path
    patch_digest: str
    patch_bytes: int
    candidate_folder: Path
    candidate_digest: str
    """Checkpoint digest of the candidate."""


class Removal(Frozen):
    """Which edit is to be taken out of a channel's stack."""

    order: Order
    """Its parent is the channel's present release; its batch, every accepted request that must go on holding."""
    version: str
    """The version that brought the edit."""
    place: int
    """Where its patch stands in the parent's stack."""
    by: str
    reason: str


class Remaining(Frozen):
    """A stack without one patch, and the candidate that it makes."""

    stack: tuple[Path, ...]
    """Folders of the remaining patches, in order."""
    edited: Edited
    """The step from the parent to the candidate: the taken patch's inverse."""


class Measured(Frozen):
    """Measurements on disk."""

    folder: Path
    digest: str


class Judged(Frozen):
    """The verdict, its Great Expectations result and its page on disk."""

    folder: Path
    digest: str
    verdict: Verdict


class Registered(Frozen):
    """A candidate in the store and in the registry."""

    version: str
    digest: str
    state: Literal["passed", "refused"]
    registry_name: str
    registry_number: int
    run_id: str
    uri: str
    page: Path
    certificate: Path | None = None
    """Where secrets were withdrawn: what was tried to get them back."""
