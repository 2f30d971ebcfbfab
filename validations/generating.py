"""Free answers: greedy, or drawn with a seed of each row's own. Rows that have finished leave the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from editors.cached import forward
from editors.loading import LoadedModel
from validations.reading import Reading, Tokens

SAMPLED_FROM = 5
"""Free text is drawn from this many likeliest tokens, as in the generations behind Meng et al. 2022's n-gram entropy."""


@torch.inference_mode()
def generate(model: LoadedModel, reading: Reading, limits: Sequence[int],
             seeds: Sequence[int] | None = None) -> list[tuple[Tokens, tuple[float, ...]]]:
    """Free continuation of every row of the reading: tokens and their log-probabilities.

    Greedy, ending with an end token; with `seeds` drawn from the likeliest tokens, never ending before its limit. A
    row's draws depend on its own seed alone.
    """
    stops = stop_tokens(model)
    draws = None if seeds is None else _draws(seeds, max(limits)).to(model.device)
    said: list[list[int]] = [[] for _ in limits]
    likely: list[list[float]] = [[] for _ in limits]
    open_rows = [row for row, limit in enumerate(limits) if limit > 0]
    state = reading.select(torch.tensor(open_rows, device=model.device, dtype=torch.long))
    while open_rows:
        step = len(said[open_rows[0]])
        chosen = state.logits.argmax(-1) if draws is None else _draw(state.logits, draws[open_rows, step], stops)
        log_probs = (state.logits.gather(-1, chosen[:, None])[:, 0] - state.logits.logsumexp(-1)).tolist()
        going = []
        for place, (row, token, log_prob) in enumerate(zip(open_rows, chosen.tolist(), log_probs, strict=True)):
            said[row].append(token)
            likely[row].append(log_prob)
            if len(said[row]) < limits[row] and not (draws is None and token in stops):
                going.append(place)
        if len(going) < len(open_rows):
            kept = torch.tensor(going, device=model.device, dtype=torch.long)
            state, chosen, open_rows = state.select(kept), chosen[kept], [open_rows[place] for place in going]
        if open_rows:
            state = _append(model, state, chosen)
    return [(tuple(tokens), tuple(values)) for tokens, values in zip(said, likely, strict=True)]


def stop_tokens(model: LoadedModel) -> frozenset[int]:
    """Tokens that end an answer: the tokenizer's, and the generation config's."""
    listed = model.model.generation_config.eos_token_id if model.model.generation_config else None
    named = listed if isinstance(listed, list) else [listed]
    return frozenset(token for token in (*named, model.tokenizer.eos_token_id) if token is not None)


def _append(model: LoadedModel, state: Reading, chosen: torch.Tensor) -> Reading:
    mask = torch.cat([state.mask, torch.ones_like(chosen)[:, None]], dim=-1)
    logits, cache = forward(model, chosen[:, None], mask, state.lengths[:, None], state.cache, last_only=True)
    return Reading(cache, mask, state.lengths + 1, logits[:, -1])


def _draws(seeds: Sequence[int], steps: int) -> torch.Tensor:
    """(rows, steps) uniform numbers; each row from its own seed."""
    return torch.stack([torch.rand(steps, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def _draw(logits: torch.Tensor, uniform: torch.Tensor, stops: frozenset[int]) -> torch.Tensor:
    """One token a row by inverse transform over the likeliest, end tokens left out. uniform: (rows,)."""
    banned = torch.tensor(sorted(stops), device=logits.device, dtype=torch.long)
    top = logits.index_fill(-1, banned, -torch.inf).topk(SAMPLED_FROM)
    cumulated = top.values.softmax(-1).cumsum(-1)
    place = (cumulated < uniform[:, None]).sum(-1).clamp(max=SAMPLED_FROM - 1)
    return top.indices.gather(-1, place[:, None])[:, 0]
