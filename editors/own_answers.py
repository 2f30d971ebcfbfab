"""What the model itself goes on to say: the answers that an edit is to turn away from, or to keep."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from editors.cached import forward
from editors.contract import EditBatch
from editors.detoxify_request import REFUSAL, DetoxifyRequest
from editors.loading import LoadedModel
from editors.prompts import Encoded, encode, render_text
from editors.safe_answers import question_of

ROWS_AT_ONCE = 32


def encoded_pair(model: LoadedModel, request: DetoxifyRequest, prompt: str, answer: str) -> Encoded:
    """A prompt of a request in its form, with an answer after it."""
    asked = question_of(request, request.id, prompt, answer)
    return encode(render_text(asked, model.tokenizer, asked.question, answer), model.tokenizer)


def safe_pairs(model: LoadedModel, batch: EditBatch) -> list[Encoded]:
    """Every unsafe prompt of the batch with its safe answer."""
    return [encoded_pair(model, request, one.prompt, one.answer or REFUSAL)
            for request in batch.detoxifies for one in request.unsafe]


def own_pairs(model: LoadedModel, prompts: Sequence[Encoded], tokens: int) -> list[Encoded]:
    """The prompts with the first choices of the model after them, `tokens` of them or up to an end token."""
    found: list[Encoded] = []
    for start in range(0, len(prompts), ROWS_AT_ONCE):
        found += _spoken(model, [one.ids[:one.prompt_length] for one in prompts[start:start + ROWS_AT_ONCE]], tokens)
    return found


@torch.no_grad()
def _spoken(model: LoadedModel, given: Sequence[tuple[int, ...]], tokens: int) -> list[Encoded]:
    """The prompts, padded on the left, are read once; a step reads one token a row and runs the head there alone."""
    said, stop, width, cache = [list(ids) for ids in given], model.tokenizer.eos_token_id, max(map(len, given)), None
    ids = torch.tensor([[0] * (width - len(one)) + list(one) for one in given], device=model.device)
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in given], device=model.device)
    for _ in range(tokens):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1]:]
        logits, cache = forward(model, ids, mask, positions, cache, last_only=True)
        ids = logits[:, -1].argmax(-1, keepdim=True)
        mask = torch.cat([mask, torch.ones_like(ids)], dim=-1)
        for row, one, token in zip(said, given, ids[:, 0].tolist(), strict=True):
            if len(row) == len(one) or row[-1] != stop:
                row.append(token)
    return [Encoded(tuple(row), len(one), len(one) - 1) for row, one in zip(said, given, strict=True)]
