"""One pass of a batch whose keys and values of earlier tokens are kept: what is generated from, step by step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from editors.loading import LoadedModel


def forward(model: LoadedModel, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any,
            last_only: bool = False) -> tuple[Tensor, Any]:
    """Logits (float32) of all positions or the last alone, and the grown cache.

    Args:
        model: The model.
        ids: (B, T) the new tokens.
        mask: (B, P + T) int64, 0 on padding, of earlier tokens and of these.
        positions: (B, T) the position number of each new token.
        cache: Keys and values of the P earlier tokens; None: there are none.
        last_only: Whether the head runs at the last position only.
    """
    # An index and not a count: the slice that a count makes is strided, and the head would run row by row over it.
    wanted = torch.tensor([ids.shape[1] - 1], device=ids.device) if last_only else 0
    out = model.model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
                      logits_to_keep=wanted)
    return out.logits.float(), out.past_key_values
