"""Later layers only, later positions only, head at chosen positions only: what a target search needs of a model.

A change of the hidden state at one layer and one token cannot reach earlier layers or earlier tokens. So one clean
pass stores the state at that layer and the keys and values of the tokens before; each step then runs the layers above
on the tokens from the edited one on, many sequences at once, and the head at the positions that are read.
Loss and gradient equal those of the full model. Chunks keep the tokens of one pass under a budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from editors.blocks import Walk, pad
from editors.loading import LoadedModel


@dataclass(frozen=True)
class Row:
    """One sequence: its edited token, whose edit it carries, and where its next-token distribution is read.

    `reads` are token indices at or after `anchor`; a later layer can only differ there.
    """

    ids: tuple[int, ...]
    anchor: int
    owner: int
    reads: tuple[int, ...]


class PrefixCache(Cache):
    """Constant keys and values of the tokens before each edited one; (B, H, P, head) a layer, padded on the right."""

    def __init__(self, keys: dict[int, Tensor], values: dict[int, Tensor], length: int) -> None:
        super().__init__(layers=[])
        self.prefix_keys, self.prefix_values, self.length = keys, values, length

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Prefix and suffix together; nothing is stored."""
        return (torch.cat([self.prefix_keys[layer_idx], key_states], dim=2),
                torch.cat([self.prefix_values[layer_idx], value_states], dim=2))

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002  the name is the parent class's
        """Tokens before the suffix, padding included."""
        return self.length

    def select(self, rows: Tensor) -> PrefixCache:
        """The cache of some rows."""
        return PrefixCache({layer: keys[rows] for layer, keys in self.prefix_keys.items()},
                           {layer: values[rows] for layer, values in self.prefix_values.items()}, self.length)


@dataclass
class Chunk:
    """Rows that run together. `state`: (B, S, D) clean state at the edit layer from each edited token on."""

    numbers: list[int]
    """Index of each row in the runner's rows."""
    state: Tensor
    prefix: PrefixCache
    walk: Walk
    read_row: Tensor
    """(Q,) which row of the chunk each read belongs to; `read_column` (Q,) its offset from the edited token."""
    read_column: Tensor


class SuffixRunner:
    """Runs the layers above `layer` for rows whose state at (`layer`, edited token) is changed.

    Args:
        model: Any known architecture, any attention implementation that takes a dense mask.
        layer: The edit layer; the change is added to its block's output.
        rows: The sequences. Each is as long as its last read needs.
        token_budget: The most tokens (padding included) of one pass.
    """

    def __init__(self, model: LoadedModel, layer: int, rows: Sequence[Row], token_budget: int = 4096) -> None:
        self.model, self.layer, self.token_budget = model, layer, token_budget
        self.rows = [Row(row.ids[:max(row.reads) + 1], row.anchor, row.owner, row.reads) for row in rows]
        self.clean_states = torch.zeros(len(rows), model.anatomy.hidden_size, device=model.device)
        self._norm = model.model.get_submodule(model.anatomy.final_norm)
        self._head = model.model.get_output_embeddings()
        self.chunks = [self._prepare(numbers) for numbers in self._grouped(range(len(rows)))]

    def logits(self, chunk: Chunk, change: Tensor) -> Tensor:
        """Next-token logits (Q, V) at the chunk's reads, row by row, with `change` (B, D) added at each edited token."""
        hidden = torch.cat([chunk.state[:, :1] + change[:, None].to(chunk.state.dtype), chunk.state[:, 1:]], dim=1)
        hidden = chunk.walk.run(hidden, self.layer + 1, self.model.anatomy.layer_count - 1)
        return self._head(self._norm(hidden[chunk.read_row, chunk.read_column]))

    def keep(self, owners: set[int]) -> None:
        """Drop the rows of every other owner, so that finished searches cost nothing."""
        kept = []
        for chunk in self.chunks:
            numbers = [number for number in chunk.numbers if self.rows[number].owner in owners]
            if len(numbers) == len(chunk.numbers):
                kept.append(chunk)
            elif numbers:
                kept.append(self._selected(chunk, numbers))
        self.chunks = kept

    def _grouped(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        """Rows of like length together, each group within the budget."""
        ordered = sorted(numbers, key=lambda n: (len(self.rows[n].ids) - self.rows[n].anchor, len(self.rows[n].ids), n))
        group: list[int] = []
        for number in ordered:
            width = max(len(self.rows[n].ids) for n in [*group, number])
            if group and width * (len(group) + 1) > self.token_budget:
                yield group
                group = []
            group.append(number)
        if group:
            yield group

    @torch.no_grad()
    def _prepare(self, numbers: list[int]) -> Chunk:
        rows = [self.rows[number] for number in numbers]
        batch = pad([row.ids for row in rows], self.model.device)
        cache = DynamicCache()
        walk = Walk(self.model, input_ids=batch.ids, attention_mask=batch.valid.long(), past_key_values=cache, use_cache=True)
        state = walk.run(walk.entry, 0, self.layer)
        last = self.model.anatomy.layer_count - 1
        walk.run(state, self.layer + 1, last)
        anchors = torch.tensor([row.anchor for row in rows], device=self.model.device)
        width = max(len(row.ids) - row.anchor for row in rows)
        columns = (anchors[:, None] + torch.arange(width, device=self.model.device)).clamp(max=batch.ids.shape[1] - 1)
        suffix = state.gather(1, columns[..., None].expand(-1, -1, state.shape[-1]))
        self.clean_states[numbers] = suffix[:, 0].to(self.clean_states.dtype)
        length = int(anchors.max())
        stored: Any = cache.layers
        layers = range(self.layer + 1, last + 1)
        prefix = PrefixCache({layer: stored[layer].keys[:, :, :length] for layer in layers},
                             {layer: stored[layer].values[:, :, :length] for layer in layers}, length)
        return self._chunk(numbers, suffix, prefix)

    def _selected(self, chunk: Chunk, numbers: list[int]) -> Chunk:
        index = torch.tensor([chunk.numbers.index(number) for number in numbers], device=chunk.state.device)
        return self._chunk(numbers, chunk.state[index], chunk.prefix.select(index))

    def _chunk(self, numbers: list[int], suffix: Tensor, prefix: PrefixCache) -> Chunk:
        rows = [self.rows[number] for number in numbers]
        device = suffix.device
        anchors = torch.tensor([row.anchor for row in rows], device=device)
        steps = torch.arange(suffix.shape[1], device=device)
        walk = Walk(self.model, inputs_embeds=torch.zeros_like(suffix), past_key_values=prefix, use_cache=True,
                    position_ids=(anchors[:, None] + steps).clamp(max=_positions(self.model) - 1),
                    attention_mask=_suffix_mask(anchors, prefix.length, suffix.shape[1], suffix.dtype))
        reads = [(place, column - row.anchor) for place, row in enumerate(rows) for column in row.reads]
        read_row, read_column = torch.tensor(reads, device=device).T
        return Chunk(numbers, suffix, prefix, walk, read_row, read_column)


def _positions(model: LoadedModel) -> int:
    return int(getattr(model.model.config, "max_position_embeddings", 1 << 30))


def _suffix_mask(anchors: Tensor, prefix: int, suffix: int, dtype: torch.dtype) -> Tensor:
    """Additive mask (B, 1, S, P + S): each row sees its own prefix, and its suffix causally."""
    own = torch.arange(prefix, device=anchors.device)[None] < anchors[:, None]
    causal = torch.ones(suffix, suffix, dtype=torch.bool, device=anchors.device).tril()
    seen = torch.cat([own[:, None, :].expand(-1, suffix, -1), causal[None].expand(len(anchors), -1, -1)], dim=-1)
    return torch.zeros(seen.shape, dtype=dtype, device=anchors.device).masked_fill(~seen, torch.finfo(dtype).min)[:, None]
