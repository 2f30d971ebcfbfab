"""Names made from content: SHA-256 over canonical JSON, files and tensors."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CHUNK_BYTES = 1 << 22


def canonical_json(document: Any) -> bytes:
    """One byte string for one document: sorted keys, no spaces, UTF-8, finite numbers only."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def digest_bytes(content: bytes) -> str:
    """SHA-256 of the bytes, 64 hexadecimal characters."""
    return hashlib.sha256(content).hexdigest()


def digest_document(document: Any) -> str:
    """SHA-256 of the document's canonical JSON."""
    return digest_bytes(canonical_json(document))


def keyed_digest(key: bytes, content: bytes) -> str:
    """HMAC-SHA-256 of the bytes: who lacks the key can neither read nor guess the content. 64 hexadecimal characters."""
    return hmac.new(key, content, hashlib.sha256).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file, read in chunks."""
    hasher = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()


def digest_tensor(tensor: torch.Tensor) -> str:
    """SHA-256 of a tensor's dtype, shape and little-endian bytes; independent of device and of file."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    hasher = hashlib.sha256(f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}".encode())
    hasher.update(flat.numpy().data)
    return hasher.hexdigest()
