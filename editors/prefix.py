"""The clean pass of a target search: what stays constant while one token's state is changed.

Tokens before the changed one keep their keys and values in every layer; later tokens are run anew in each step. So the
clean pass carries no token after the changed one above the edit layer. Sequences that begin alike, as those in one
context do, share the pass over their common beginning, their stem.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad as padded
from transformers import Cache

from editors.blocks import Walk, pad
from editors.loading import LoadedModel

LayerTensors = dict[int, Tensor]
PASS_TOKENS = 64
"""What one more pass costs, in tokens: below this many, a pass takes as long as reading the weights does."""


class PrefixCache(Cache):
    """Constant keys and values of earlier tokens: (B, H, P, head) a layer. `seen` (B, P): false on padding."""

    def __init__(self, keys: LayerTensors, values: LayerTensors, seen: Tensor) -> None:
        super().__init__(layers=[])
        self.prefix_keys, self.prefix_values, self.seen = keys, values, seen

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Prefix and present tokens together; nothing is stored."""
        if not self.seen.shape[1]:
            return key_states, value_states
        return (torch.cat([self.prefix_keys[layer_idx], key_states], dim=2),
                torch.cat([self.prefix_values[layer_idx], value_states], dim=2))

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002  the name is the parent class's
        """Earlier tokens, padding included."""
        return self.seen.shape[1]

    def select(self, rows: Tensor) -> PrefixCache:
        """The cache of some rows."""
        return PrefixCache({layer: keys[rows] for layer, keys in self.prefix_keys.items()},
                           {layer: values[rows] for layer, values in self.prefix_values.items()}, self.seen[rows])


class RecordingCache(PrefixCache):
    """A prefix that keeps the present tokens' own keys and values as well."""

    def __init__(self, prefix: PrefixCache) -> None:
        super().__init__(prefix.prefix_keys, prefix.prefix_values, prefix.seen)
        self.own_keys: LayerTensors = {}
        self.own_values: LayerTensors = {}

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Prefix and present tokens together; the present tokens' are kept."""
        self.own_keys[layer_idx], self.own_values[layer_idx] = key_states, value_states
        return super().update(key_states, value_states, layer_idx)


def joined(parts: Sequence[PrefixCache]) -> PrefixCache:
    """Rows of several caches as one, padded on the right to the longest."""
    width = max(part.seen.shape[1] for part in parts)
    filled = [width - part.seen.shape[1] for part in parts]
    keys, values = ({layer: torch.cat([padded(tensors[layer], (0, 0, 0, more))
                                       for tensors, more in zip(group, filled, strict=True)]) for layer in group[0]}
                    for group in ([part.prefix_keys for part in parts], [part.prefix_values for part in parts]))
    seen = torch.cat([padded(part.seen, (0, more)) for part, more in zip(parts, filled, strict=True)])
    return PrefixCache(keys, values, seen)


@dataclass(frozen=True)
class CleanRun:
    """The clean pass of some rows.

    suffix: (B, S, D) states after the edit layer from each edited token on, past a row's end arbitrary; prefix: what the
    layers above need of the tokens before.
    """

    suffix: Tensor
    prefix: PrefixCache


@torch.no_grad()
def clean_run(model: LoadedModel, layer: int, rows: Sequence[tuple[tuple[int, ...], int]]) -> CleanRun:
    """Run rows of (token ids, index of the edited token) without a change.

    Args:
        model: Any known architecture.
        layer: The edit layer.
        rows: The sequences.
    """
    last, device = model.anatomy.layer_count - 1, model.device
    lengths = stem_lengths(rows)
    stem = _stems(model, [ids[:length] for (ids, _), length in zip(rows, lengths, strict=True)])
    starts = torch.tensor(lengths, device=device)
    own = pad([ids[length:] for (ids, _), length in zip(rows, lengths, strict=True)], device)
    anchors = torch.tensor([anchor for _, anchor in rows], device=device) - starts
    state = _walk(model, own.ids, starts, stem, 0, layer)
    before = int(anchors.max())
    above = RecordingCache(stem)
    if before:
        _walk(model, state[:, :before], starts, above, layer + 1, last)
    width = max(len(ids) - anchor for ids, anchor in rows)
    columns = (anchors[:, None] + torch.arange(width, device=device)).clamp(max=state.shape[1] - 1)
    suffix = state.gather(1, columns[..., None].expand(-1, -1, state.shape[-1]))
    seen = torch.cat([stem.seen, torch.arange(before, device=device)[None] < anchors[:, None]], dim=1)
    layers = range(layer + 1, last + 1)
    return CleanRun(suffix, PrefixCache(_with_stem(stem.prefix_keys, above.own_keys, layers),
                                        _with_stem(stem.prefix_values, above.own_values, layers), seen))


def suffix_walk(model: LoadedModel, hidden: Tensor, starts: Tensor, prefix: PrefixCache) -> Walk:
    """A walk for tokens (B, S, D) that begin at positions `starts` (B,) and see `prefix`, then one another causally."""
    steps = torch.arange(hidden.shape[1], device=hidden.device)
    inputs = {"input_ids": hidden} if hidden.ndim == 2 else {"inputs_embeds": torch.zeros_like(hidden)}
    return Walk(model, **inputs, past_key_values=prefix, use_cache=True,
                position_ids=(starts[:, None] + steps).clamp(max=_positions(model) - 1),
                attention_mask=_mask(prefix.seen, hidden.shape[1], model.model.dtype))


def _walk(model: LoadedModel, tokens: Tensor, starts: Tensor, prefix: PrefixCache, first: int, last: int) -> Tensor:
    walk = suffix_walk(model, tokens, starts, prefix)
    return walk.run(walk.entry if tokens.ndim == 2 else tokens, first, last)


def stem_lengths(rows: Sequence[tuple[tuple[int, ...], int]]) -> list[int]:
    """How many tokens of each row are run once for all rows that begin so; each row keeps its edited token."""
    shared = Counter(ids[:length] for ids, anchor in rows for length in range(1, anchor + 1))

    def saving(ids: tuple[int, ...], length: int) -> float:
        return length * (1 - 1 / max(shared[ids[:length]], 1))

    lengths = [max(range(anchor + 1), key=lambda length: saving(ids, length)) for ids, anchor in rows]
    total = sum(saving(ids, length) for (ids, _), length in zip(rows, lengths, strict=True))
    return lengths if total > PASS_TOKENS else [0] * len(rows)


def _stems(model: LoadedModel, stems: Sequence[tuple[int, ...]]) -> PrefixCache:
    """Keys and values of every row's stem in all layers, each different stem run once; (B, H, P, head)."""
    device, different = model.device, list(dict.fromkeys(stem for stem in stems if stem))
    if not different:
        return PrefixCache({}, {}, torch.zeros(len(stems), 0, dtype=torch.bool, device=device))
    batch = pad(different, device)
    recorder = RecordingCache(PrefixCache({}, {}, torch.zeros(len(different), 0, dtype=torch.bool, device=device)))
    _walk(model, batch.ids, torch.zeros(len(different), dtype=torch.int64, device=device), recorder, 0,
          model.anatomy.layer_count - 1)
    # a row without a stem takes any, and sees none of it
    which = torch.tensor([different.index(stem) if stem else 0 for stem in stems], device=device)
    lengths = torch.tensor([len(stem) for stem in stems], device=device)
    seen = torch.arange(batch.ids.shape[1], device=device)[None] < lengths[:, None]
    return PrefixCache({layer: keys[which] for layer, keys in recorder.own_keys.items()},
                       {layer: values[which] for layer, values in recorder.own_values.items()}, seen)


def _with_stem(stem: LayerTensors, own: LayerTensors, layers: range) -> LayerTensors:
    return {layer: torch.cat([part[layer] for part in (stem, own) if layer in part], dim=2) for layer in layers
            if layer in stem or layer in own}


def _mask(seen: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Additive mask (B, 1, S, P + S): each row sees its own prefix, and its present tokens causally."""
    causal = torch.ones(width, width, dtype=torch.bool, device=seen.device).tril()
    visible = torch.cat([seen[:, None, :].expand(-1, width, -1), causal[None].expand(len(seen), -1, -1)], dim=-1)
    return torch.zeros(visible.shape, dtype=dtype, device=seen.device).masked_fill(~visible, torch.finfo(dtype).min)[:, None]


def _positions(model: LoadedModel) -> int:
    return int(getattr(model.model.config, "max_position_embeddings", 1 << 30))
