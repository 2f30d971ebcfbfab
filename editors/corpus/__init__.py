"""The text that edits must not disturb, for users who bring none: written by the model itself."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import torch

from editors.contract import Progress, silent
from editors.digest import digest_document
from editors.loading import LoadedModel
from editors.moments import Corpus

ROWS, LENGTH, BATCHES, SEED = 128, 128, 2, 0
TOKENS = ROWS * LENGTH * BATCHES
TEMPERATURE = 1.0


def default_corpus(model: LoadedModel, store: Path, progress: Progress = silent) -> Corpus:
    """The model's own text: sampled once with a fixed seed, then kept in the store."""
    name = digest_document({"model": model.digest, "rows": ROWS, "length": LENGTH, "batches": BATCHES, "seed": SEED})
    path = store / f"own-text-{name[:32]}.json"
    if not path.exists():
        store.mkdir(parents=True, exist_ok=True)
        descriptor, scratch = tempfile.mkstemp(dir=store, prefix=".writing-")
        with os.fdopen(descriptor, "w") as stream:
            json.dump(_sampled(model, progress), stream)
        os.replace(scratch, path)
    return Corpus("own-text", tuple(tuple(row) for row in json.loads(path.read_text())))


@torch.no_grad()
def _sampled(model: LoadedModel, progress: Progress) -> list[list[int]]:
    rows: list[list[int]] = []
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        start = model.model.config.bos_token_id or model.tokenizer.eos_token_id or 0
        for number in range(BATCHES):
            ids = torch.full((ROWS, 1), start, device=model.device)
            found = model.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=LENGTH, do_sample=True,
                                         temperature=TEMPERATURE, top_k=0, top_p=1.0, eos_token_id=None, pad_token_id=0)
            rows += [row[1:] for row in found.tolist()]
            progress("corpus", (number + 1) * ROWS * LENGTH, BATCHES * ROWS * LENGTH)
    return rows
