"""From the sheet's `base` to a folder on this machine: packaged model, folder, hub id, `s3://` release, or registry."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from editors.errors import BaseNotFound
from editors.packaged import NAME, packaged_folder

if TYPE_CHECKING:
    from editors.loading import Checkpoint

HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+(@[\w.-]+)?$")
HUB_PATTERNS = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
FORMS = "smollm2-135m-instruct | a hub id (org/name or org/name@revision) | a folder | s3://... | models:/name@alias"


def local_base(reference: str, cache: Path) -> Checkpoint:
    """The checkpoint that a packaged, folder or hub reference names, fetched or converted when it is not here yet.

    Raises:
        BaseNotFound: nothing is there; the message says where it was looked for.
        IntegrityError: what is there is damaged.
    """
    from editors.loading import Checkpoint

    if reference == NAME:
        return Checkpoint(packaged_folder(cache))
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return Checkpoint(folder.absolute())
    if folder.is_absolute() or reference.startswith((".", "~")):
        raise BaseNotFound(f"the base folder {reference} does not exist", f"use one of: {FORMS}")
    if HUB_ID.match(reference):
        return Checkpoint(_hub_folder(reference))
    near = get_close_matches(reference, [NAME], 1)
    raise BaseNotFound(f"the base {reference!r} is neither a packaged model, a folder nor a hub id",
                       f"base: {near[0]}" if near else f"use one of: {FORMS}")


def _hub_folder(reference: str) -> Path:
    """A snapshot of one commit; the folder's name is the commit, so a moved branch is another folder."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = reference.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(HUB_PATTERNS)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BaseNotFound(f"the hub model {reference!r} could not be fetched: {reason}",
                           "check the name, your access (huggingface-cli login) and the network") from error
