"""The text that edits must not disturb, for users who bring none: written by the model itself.

Sampled once from the tokens that open a document or a conversation, with a fixed seed and temperature 1, and kept beside
the statistics. It needs no download and no licence, has the model's own mixture of prose and chat, and follows the model.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import torch
from transformers import DynamicCache

from editors.anatomy import Anatomy
from editors.contract import Progress, silent
from editors.digest import digest_document
from editors.loading import LoadedModel
from editors.moments import Corpus

LENGTH, MOST_ROWS, ROWS_AT_ONCE, SEED = 128, 256, 128, 0
TOKENS_PER_KEY_DIMENSION = 22
"""Enough for a second moment of full rank with room; more than 32768 tokens are never sampled."""


def default_corpus(model: LoadedModel, base_digest: str, store: Path, progress: Progress = silent) -> Corpus:
    """The base's own text, from the store or sampled now from the model at hand; edits of one base share it."""
    count = row_count(model.anatomy)
    name = digest_document({"base": base_digest, "rows": count, "length": LENGTH, "seed": SEED})
    path = store / f"own-text-{name[:32]}.json"
    if not path.exists():
        store.mkdir(parents=True, exist_ok=True)
        rows = _sampled(model, count, progress)
        descriptor, scratch = tempfile.mkstemp(dir=store, prefix=".writing-")
        with os.fdopen(descriptor, "w") as stream:
            json.dump(rows, stream)
        os.replace(scratch, path)
    return Corpus("own-text", tuple(tuple(row) for row in json.loads(path.read_text())))


def row_count(shapes: Anatomy) -> int:
    """How many sequences of `LENGTH` tokens the corpus of a model with these shapes has."""
    return min(MOST_ROWS, -(-TOKENS_PER_KEY_DIMENSION * shapes.inner_size // LENGTH))


def openings(model: LoadedModel) -> list[int]:
    """Tokens after which the model expects anything: those that begin or part documents and turns."""
    tokenizer = model.tokenizer
    named = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id]
    return list(dict.fromkeys(token for token in named if token is not None)) or [0]


@torch.no_grad()
def _sampled(model: LoadedModel, count: int, progress: Progress) -> list[list[int]]:
    generator = torch.Generator().manual_seed(SEED)
    starts, rows = openings(model), list[list[int]]()
    for first in range(0, count, ROWS_AT_ONCE):
        size = min(ROWS_AT_ONCE, count - first)
        ids = torch.tensor([[starts[row % len(starts)]] for row in range(size)], device=model.device)
        cache, text = DynamicCache(), [ids]
        for step in range(LENGTH - 1):
            logits = model.model(input_ids=text[-1], past_key_values=cache, use_cache=True).logits[:, -1].float().cpu()
            text.append(torch.multinomial(logits.softmax(-1), 1, generator=generator).to(model.device))
            progress("own text", first * LENGTH + (step + 2) * size, count * LENGTH)
        rows += torch.cat(text, dim=1).tolist()
    return rows
