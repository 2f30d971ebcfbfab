"""Many prompts read together: batches of like length, and words that a whole batch begins with read only once.

Padding changes nothing: masked positions carry no weight, and every token keeps the position number it would have alone.
The head runs at a prompt's last position only.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from editors.cached import forward
from editors.loading import LoadedModel

Tokens = tuple[int, ...]

ROWS_AT_MOST = 192
"""Large, because a step of free text costs 64 rows 1.5 times what it costs 16 (SmolLM2 in float32 on 2 cores)."""
TOKENS_AT_MOST = 4096
SHARED_AT_LEAST = 4
"""A shorter common beginning is not worth a pass of its own."""
FAMILY_AT_LEAST = 16
"""Fewer prompts with one beginning are read with the others: each batch pays again for every step of free text."""


@dataclass
class Reading:
    """A batch of P prompts inside the model.

    cache: their keys and values; mask: (P, T) int64, 0 where padded; lengths: (P,) int64, tokens without padding;
    logits: (P, V) float32, at each prompt's last token.
    """

    cache: Any
    mask: torch.Tensor
    lengths: torch.Tensor
    logits: torch.Tensor

    @cached_property
    def log_probs(self) -> torch.Tensor:
        """(P, V) float32."""
        return self.logits.log_softmax(-1)

    def select(self, rows: torch.Tensor) -> Reading:
        """The given rows, repeated as often as named; this reading stays as it is."""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]
        cache.batch_select_indices(rows)
        return Reading(cache, self.mask[rows], self.lengths[rows], self.logits[rows])


def batches(prompts: Sequence[Tokens]) -> list[list[int]]:
    """Indices of prompts that are read together: same beginning where many share one, like length, bounded size."""
    openings = Counter(prompt[:SHARED_AT_LEAST] for prompt in prompts)
    common = {opening for opening, count in openings.items() if count >= FAMILY_AT_LEAST}
    families: dict[Tokens, list[int]] = {}
    for index, prompt in enumerate(prompts):
        opening = prompt[:SHARED_AT_LEAST]
        families.setdefault(opening if opening in common else (), []).append(index)
    groups: list[list[int]] = []
    for opening in sorted(families):
        group: list[int] = []
        for index in sorted(families[opening], key=lambda index: (len(prompts[index]), index)):
            if group and (len(group) == ROWS_AT_MOST or (len(group) + 1) * len(prompts[index]) > TOKENS_AT_MOST):
                groups.append(group)
                group = []
            group.append(index)
        groups.append(group)
    return groups


@torch.inference_mode()
def read(model: LoadedModel, prompts: Sequence[Tokens]) -> Reading:
    """Read prompts together: their common beginning once, the rest padded on the left."""
    device, count = model.device, len(prompts)
    shared = _shared_length(prompts) if count > 1 else 0
    cache = None
    if shared >= SHARED_AT_LEAST:
        beginning = torch.tensor([prompts[0][:shared]], device=device)
        alone = torch.arange(shared, device=device)[None]
        _, cache = forward(model, beginning, torch.ones_like(beginning), alone, None, last_only=True)
        cache.batch_repeat_interleave(count)
    else:
        shared = 0
    width = max(len(prompt) for prompt in prompts) - shared
    gaps = [width + shared - len(prompt) for prompt in prompts]
    ids = torch.tensor([[0] * gap + list(prompt[shared:]) for gap, prompt in zip(gaps, prompts, strict=True)], device=device)
    mask = torch.tensor([[1] * shared + [0] * gap + [1] * (width - gap) for gap in gaps], device=device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, shared:]
    logits, cache = forward(model, ids, mask, positions, cache, last_only=True)
    return Reading(cache, mask, mask.sum(-1), logits[:, -1])


def _shared_length(prompts: Sequence[Tokens]) -> int:
    """Tokens that all prompts begin with, leaving each at least one of its own."""
    shortest = min(prompts, key=len)
    limit = len(shortest) - 1
    return next((i for i in range(limit) if any(prompt[i] != shortest[i] for prompt in prompts)), limit)
