"""Later layers only, later positions only, head at chosen positions only: what a target search needs of a model.

A change of the hidden state at one layer and one token cannot reach earlier layers or earlier tokens. So one clean
pass stores the state at that layer and the keys and values of the tokens before (`prefix`); each step then runs the
layers above on the tokens from the edited one on, many sequences at once, and the head at the positions that are read.
Loss and gradient equal those of the full model. Chunks keep the tokens of one pass under a budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad as padded

from editors.blocks import Walk
from editors.loading import LoadedModel
from editors.prefix import PrefixCache, clean_run, joined, suffix_walk

CLEAN_TOKENS = 8
"""A pass without gradient keeps one layer's activations and not all: it takes this many times the token budget."""


@dataclass(frozen=True)
class Row:
    """One sequence: its edited token, whose edit it carries, and where its next-token distribution is read.

    `reads` are token indices at or after `anchor`; a later layer can only differ there.
    """

    ids: tuple[int, ...] = field(repr=False)
    anchor: int
    owner: int
    reads: tuple[int, ...]


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
        token_budget: The most tokens (padding included) of one pass with gradient.
    """

    def __init__(self, model: LoadedModel, layer: int, rows: Sequence[Row], token_budget: int = 128) -> None:
        self.model, self.layer, self.token_budget = model, layer, token_budget
        self.rows = [Row(row.ids[:max(row.reads) + 1], row.anchor, row.owner, row.reads) for row in rows]
        self.clean_states = torch.zeros(len(rows), model.anatomy.hidden_size, device=model.device)
        self._norm = model.model.get_submodule(model.anatomy.final_norm)
        self._head = model.model.get_output_embeddings()
        self.chunks = list(self._joined([chunk for numbers in self._prepared_together() for chunk in self._prepare(numbers)]))

    def logits(self, chunk: Chunk, change: Tensor) -> Tensor:
        """Next-token logits (Q, V) at the chunk's reads, row by row, with `change` (B, D) added at each edited token."""
        hidden = torch.cat([chunk.state[:, :1] + change[:, None].to(chunk.state.dtype), chunk.state[:, 1:]], dim=1)
        hidden = chunk.walk.run(hidden, self.layer + 1, self.model.anatomy.layer_count - 1)
        return self._head(self._norm(hidden[chunk.read_row, chunk.read_column]))

    def keep(self, owners: set[int]) -> None:
        """Drop the rows of every other owner, so that finished searches cost nothing; chunks that shrank are joined."""
        kept = []
        for chunk in self.chunks:
            numbers = [number for number in chunk.numbers if self.rows[number].owner in owners]
            if len(numbers) == len(chunk.numbers):
                kept.append(chunk)
            elif numbers:
                index = torch.tensor([chunk.numbers.index(number) for number in numbers], device=chunk.state.device)
                kept.append(self._chunk(numbers, chunk.state[index], chunk.prefix.select(index)))
        self.chunks = list(self._joined(kept))

    def _prepared_together(self) -> Iterator[list[int]]:
        """Rows of like length, each group within what a pass without gradient takes."""
        lengths = [len(row.ids) for row in self.rows]
        yield from grouped(sorted(range(len(lengths)), key=lengths.__getitem__), lengths, CLEAN_TOKENS * self.token_budget)

    def _run_together(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        """Of some rows, those with as many tokens from the edited one on, each group within the budget."""
        widths = [len(row.ids) - row.anchor for row in self.rows]
        yield from grouped(sorted(numbers, key=widths.__getitem__), widths, self.token_budget)

    def _prepare(self, numbers: list[int]) -> Iterator[Chunk]:
        clean = clean_run(self.model, self.layer, [(self.rows[number].ids, self.rows[number].anchor) for number in numbers])
        self.clean_states[numbers] = clean.suffix[:, 0].to(self.clean_states.dtype)
        for group in self._run_together(numbers):
            index = torch.tensor([numbers.index(number) for number in group], device=clean.suffix.device)
            width = max(len(self.rows[number].ids) - self.rows[number].anchor for number in group)
            yield self._chunk(group, clean.suffix[index, :width], clean.prefix.select(index))

    def _joined(self, chunks: list[Chunk]) -> Iterator[Chunk]:
        """Neighbouring chunks together as long as they fit the budget."""
        waiting: list[Chunk] = []
        for chunk in chunks:
            width = max(one.state.shape[1] for one in [*waiting, chunk])
            if waiting and width * sum(len(one.numbers) for one in [*waiting, chunk]) > self.token_budget:
                yield self._one(waiting)
                waiting = []
            waiting.append(chunk)
        if waiting:
            yield self._one(waiting)

    def _one(self, chunks: list[Chunk]) -> Chunk:
        if len(chunks) == 1:
            return chunks[0]
        width = max(chunk.state.shape[1] for chunk in chunks)
        state = torch.cat([padded(chunk.state, (0, 0, 0, width - chunk.state.shape[1])) for chunk in chunks])
        return self._chunk([number for chunk in chunks for number in chunk.numbers], state,
                           joined([chunk.prefix for chunk in chunks]))

    def _chunk(self, numbers: list[int], suffix: Tensor, prefix: PrefixCache) -> Chunk:
        rows = [self.rows[number] for number in numbers]
        anchors = torch.tensor([row.anchor for row in rows], device=suffix.device)
        walk = suffix_walk(self.model, suffix, anchors, prefix)
        reads = [(place, column - row.anchor) for place, row in enumerate(rows) for column in row.reads]
        read_row, read_column = torch.tensor(reads, device=suffix.device).T
        return Chunk(numbers, suffix, prefix, walk, read_row, read_column)


def grouped(ordered: Sequence[int], widths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Numbers in their order, in groups that padded to their widest hold at most `budget`; one alone may hold more."""
    group: list[int] = []
    for number in ordered:
        if group and max(widths[n] for n in [*group, number]) * (len(group) + 1) > budget:
            yield group
            group = []
        group.append(number)
    if group:
        yield group
