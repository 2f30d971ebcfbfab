"""The text that edits must not disturb, for users who bring none: written by the model itself.

Sampled once with a fixed seed and kept beside the statistics. It needs no download and no licence and follows the model.
A quarter of the rows begin with a token that opens a document or a conversation; the others with openings of our own
that call for names, because it is at names that an edit of facts does its damage.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import DynamicCache

from editors.anatomy import Anatomy
from editors.contract import Progress, silent
from editors.digest import digest_document, digest_file
from editors.errors import IntegrityError
from editors.loading import LoadedModel
from editors.moments import Corpus
from editors.stored import write_whole

LENGTH, MOST_ROWS, ROWS_AT_ONCE, SEED = 128, 256, 128, 0
TEMPERATURE = 0.9
OPENINGS = Path(__file__).with_name("openings.json")
TOKENS_PER_KEY_DIMENSION = 22
"""Enough for a second moment of full rank with room; more than 32768 tokens are never sampled."""


def default_corpus(model: LoadedModel, base_digest: str, store: Path, progress: Progress = silent) -> Corpus:
    """The base's own text, from the store or sampled now from the model at hand; edits of one base share it."""
    path = corpus_file(model.anatomy, base_digest, store)
    if not path.exists():
        rows = _sampled(model, row_count(model.anatomy), progress)
        write_rows(path, rows)
    return _read(path)


def write_rows(path: Path, rows: Sequence[Sequence[int]]) -> None:
    """Keep a base's own text with its digest."""
    document = {"sha256": digest_document(rows), "rows": rows}
    write_whole(path, lambda scratch: scratch.write_text(json.dumps(document)))


def held_corpus(shapes: Anatomy, base_digest: str, store: Path) -> Corpus | None:
    """The base's own text where the store has it; no weight is read."""
    path = corpus_file(shapes, base_digest, store)
    return _read(path) if path.exists() else None


def corpus_file(shapes: Anatomy, base_digest: str, store: Path) -> Path:
    """Where a base's own text is kept."""
    name = digest_document({"base": base_digest, "rows": row_count(shapes), "length": LENGTH, "seed": SEED,
                            "temperature": TEMPERATURE, "openings": digest_file(OPENINGS)})
    return store / f"own-text-{name[:32]}.json"


def row_count(shapes: Anatomy) -> int:
    """How many sequences of `LENGTH` tokens the corpus of a model with these shapes has."""
    return min(MOST_ROWS, -(-TOKENS_PER_KEY_DIMENSION * shapes.inner_size // LENGTH))


def openings(model: LoadedModel) -> list[list[int]]:
    """How the rows begin, in turn: our openings, and every fourth by a token after which the model expects anything."""
    tokenizer = model.tokenizer
    named = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id]
    starts = list(dict.fromkeys(token for token in named if token is not None)) or [0]
    found: list[list[int]] = []
    for number, text in enumerate(json.loads(OPENINGS.read_text(encoding="utf-8"))):
        if number % 3 == 0:
            found.append([starts[number // 3 % len(starts)]])
        found.append(tokenizer(text)["input_ids"])
    return found


def _read(path: Path) -> Corpus:
    """The text as it was written; that of older versions is its rows alone, without a digest.

    Raises:
        IntegrityError: the file cannot be read, or holds another text than was written.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
        rows = document if isinstance(document, list) else document["rows"]
        is_whole = rows is document or (document.keys() == {"sha256", "rows"} and digest_document(rows) == document["sha256"])
        corpus = Corpus("own-text", tuple(tuple(map(int, row)) for row in rows))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path} cannot be read: {type(error).__name__}", f"rm {path}") from error
    if not is_whole:
        raise IntegrityError(f"{path} does not have the digest it was written with", f"rm {path}")
    return corpus


@torch.no_grad()
def _sampled(model: LoadedModel, count: int, progress: Progress) -> list[list[int]]:
    generator = torch.Generator().manual_seed(SEED)
    begun, rows = openings(model), list[list[int]]()
    for first in range(0, count, ROWS_AT_ONCE):
        size = min(ROWS_AT_ONCE, count - first)
        given = [begun[row % len(begun)][:LENGTH] for row in range(first, first + size)]
        cache, text = DynamicCache(), [torch.tensor([[opening[0]] for opening in given])]
        for step in range(1, LENGTH):
            ids = text[-1].to(model.device)
            logits = model.model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, -1].float().cpu()
            drawn = torch.multinomial((logits / TEMPERATURE).softmax(-1), 1, generator=generator)
            for row, opening in enumerate(given):
                if step < len(opening):
                    drawn[row, 0] = opening[step]
            text.append(drawn)
            progress("own text", first * LENGTH + (step + 1) * size, count * LENGTH)
        rows += torch.cat(text, dim=1).tolist()
    return rows
