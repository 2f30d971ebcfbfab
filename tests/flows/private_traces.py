"""Looking for a private text in every byte that a run wrote: in plain, in pieces, in base64, in other encodings, as tokens."""

from __future__ import annotations

import base64
import gzip
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PIECE = 8
"""Characters of the shortest piece that counts as a trace."""
TOKENS = 3
"""Fewest token ids in a row that count as a trace, where they spell a piece: two small numbers stand side by side anywhere."""


def needles_of(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> dict[bytes, str]:
    """What must not be found -> what it would be."""
    found: dict[bytes, str] = {}
    for text in texts:
        for piece in {text, *(text[start:start + PIECE] for start in range(len(text) - PIECE + 1))}:
            found[piece.encode()] = "plain"
            found[piece.encode("utf-16-le")] = "utf-16"
            found[piece.encode().hex().encode()] = "hexadecimal"
            found |= dict.fromkeys(_base64(piece.encode()), "base64")
        for spoken in (text, f" {text}"):
            ids = tokenizer(spoken, add_special_tokens=False)["input_ids"]
            for start in range(len(ids)):
                found |= _as_numbers(_spelling_a_piece(ids[start:], tokenizer))
    return found


def traces(folder: Path, needles: dict[bytes, str]) -> list[str]:
    """`file: form` of every needle found under the folder, compressed content and file names included."""
    found = set()
    for path in sorted(folder.rglob("*")):
        contents = [str(path.relative_to(folder)).encode()]
        if path.is_file() and not path.is_symlink():
            with suppress(FileNotFoundError):  # a server's own, taken away as it stopped: not at rest
                contents += _contents(path.read_bytes())
        for content in contents:
            found |= {f"{path.relative_to(folder)}: {form}" for needle, form in needles.items() if needle in content}
    return sorted(found)


def _base64(content: bytes) -> Iterator[bytes]:
    """The characters that its base64 has at each of the three alignments, whatever stands around it."""
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + content)
        whole = encoded[4 if shift else 0:len(encoded) // 4 * 4 - (4 if (shift + len(content)) % 3 else 0)]
        if len(whole) >= PIECE:
            yield whole
            yield whole.replace(b"+", b"-").replace(b"/", b"_")


def _spelling_a_piece(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> Sequence[int]:
    """The fewest first ids that are a trace; none where all together are not."""
    for count in range(TOKENS, len(ids) + 1):
        if len(str(tokenizer.decode(ids[:count])).strip()) >= PIECE:
            return ids[:count]
    return ()


def _as_numbers(ids: Sequence[int]) -> dict[bytes, str]:
    if not ids:
        return {}
    texts = (separator.join(map(str, ids)) for separator in (", ", ",", " ", "\n"))
    packed = (struct.pack(f"<{len(ids)}{code}", *ids) for code in "qiH")
    return dict.fromkeys([*(text.encode() for text in texts), *packed], "token ids")


def _contents(content: bytes) -> Iterator[bytes]:
    yield content
    for unpack in (gzip.decompress, zlib.decompress):
        try:
            yield unpack(content)
        except (OSError, EOFError, zlib.error):
            continue
