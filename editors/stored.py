"""Files of the statistics store: written whole or not at all, and a tensor verified by its digest whenever it is read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from editors.digest import digest_tensor
from editors.errors import IntegrityError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a scratch file beside `path`, then put it in place; a kill leaves the old file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    os.close(descriptor)
    try:
        write(Path(scratch))
        os.replace(scratch, path)
    finally:
        Path(scratch).unlink(missing_ok=True)


def write_tensor(path: Path, name: str, tensor: Tensor, metadata: Mapping[str, str]) -> None:
    """One tensor as safetensors; `metadata` is kept with its digest."""
    found = {**metadata, "sha256": digest_tensor(tensor)}
    write_whole(path, lambda scratch: save_file({name: tensor.contiguous()}, scratch, metadata=found))


def read_tensor(path: Path, name: str) -> Tensor:
    """The tensor as it was written, on the CPU.

    Raises:
        IntegrityError: the file cannot be read, or holds other numbers than were written.
    """
    try:
        with safe_open(path, framework="pt") as stored:
            tensor, metadata = stored.get_tensor(name), stored.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise IntegrityError(f"{path} cannot be read: {error}", f"rm {path}") from error
    if digest_tensor(tensor) != metadata.get("sha256"):
        raise IntegrityError(f"{path} does not have the digest it was written with", f"rm {path}")
    return tensor
