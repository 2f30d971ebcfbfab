"""What a closed-form edit will cost, from shapes alone: bytes, floating-point operations, seconds on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

import torch

from editors.anatomy import Anatomy
from editors.contract import EditBatch, Estimate, UpdateRequest

CHARACTERS_PER_TOKEN = 4.0
PREFIX_TOKENS = 9
CHAT_TOKENS = 40
"""Tokens that a chat template and its default system turn add."""
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Work:
    """The sizes that decide the cost of an edit."""

    layers: tuple[int, ...]
    contexts: int
    steps: int
    token_budget: int
    corpus_tokens: int


def estimate_of(shapes: Anatomy, batch: EditBatch, work: Work) -> Estimate:
    """The cost of statistics (as if none were stored), target search and writing."""
    block = 4 * shapes.hidden_size ** 2 + 3 * shapes.hidden_size * shapes.inner_size
    head = shapes.hidden_size * shapes.vocabulary_size
    top = max(work.layers)
    prompt, suffix, read = (sum(sizes) for sizes in zip(*(_tokens(request) for request in batch.requests), strict=True))
    rows = work.contexts + 1
    statistics = work.corpus_tokens * (4 * (top + 1) * block + 2 * len(work.layers) * shapes.inner_size ** 2)
    clean = 2 * rows * prompt * shapes.layer_count * block
    # Weights are constant in the search: each costs one product forward and one for the gradient of its input
    search = 4 * work.steps * rows * (suffix * (shapes.layer_count - top - 1) * block + read * head)
    writing = 2 * rows * prompt * block * sum(top - layer + 2 for layer in work.layers)
    writing += len(work.layers) * shapes.inner_size ** 2 * (shapes.inner_size // 3 + 4 * len(batch.requests))
    parameters = shapes.layer_count * block + 2 * head
    pass_tokens = min(work.token_budget, rows * suffix)
    activations = pass_tokens * (shapes.layer_count - top) * (14 * shapes.hidden_size + 6 * shapes.inner_size)
    logits = 3 * min(rows * read, work.token_budget) * shapes.vocabulary_size
    moments = 4 * len(work.layers) * shapes.inner_size ** 2
    flops = statistics + clean + search + writing
    return Estimate(memory_bytes=FLOAT_BYTES * (parameters + activations + logits + moments), flops=flops,
                    seconds=flops / arithmetic_rate())


@cache
def arithmetic_rate() -> float:
    """Float32 operations a second of this process on the CPU, measured once on a product of FFN-like shape."""
    left, right = torch.ones(512, 576), torch.ones(576, 1536)
    torch.mm(left, right)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < 0.05:
        torch.mm(left, right)
        count += 1
    return count * 2 * 512 * 576 * 1536 / (time.perf_counter() - started)


def _tokens(request: UpdateRequest) -> tuple[int, int, int]:
    """About how many tokens a context has in all, from the edited token on, and in the answer."""
    turns = sum(len(turn.content) for turn in request.messages or ()) or len(request.question)
    answer = max(1, round(len(request.target_text) / CHARACTERS_PER_TOKEN))
    overhead = CHAT_TOKENS if request.is_chat else PREFIX_TOKENS
    prompt = round(turns / CHARACTERS_PER_TOKEN) + overhead + answer
    after_subject = len(request.question) - request.question.rfind(request.subject or "") - len(request.subject or "")
    return prompt, max(1, round(after_subject / CHARACTERS_PER_TOKEN)) + answer, answer
