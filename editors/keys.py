"""Keys and states of facts, layer by layer, carried forward so that no block runs twice under the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editors.blocks import Walk, captured_input, pad, prefill
from editors.facts import KeyRow
from editors.loading import LoadedModel
from editors.suffix import CLEAN_TOKENS


@dataclass
class _Part:
    """Rows of like length. hidden: (B, T, D) the input of the reader's present layer."""

    rows: list[KeyRow]
    walk: Walk
    hidden: Tensor
    last: Tensor
    owners: Tensor
    weights: Tensor


class KeyReader:
    """Reads averaged keys and states of N facts, and follows edits that are applied between reads.

    Args:
        model: The model; edits are applied to its own parameters by the caller.
        rows: Where each key occurs, with its weight.
        first: The first layer to be edited; blocks below run once.
        token_budget: The most tokens of a pass that keeps its activations; these passes keep none and take more.
    """

    def __init__(self, model: LoadedModel, rows: Sequence[KeyRow], first: int, token_budget: int = 128) -> None:
        self.model, self.layer, self.count = model, first, 1 + max(row.owner for row in rows)
        self.parts = [self._prepare(group) for group in _grouped(rows, CLEAN_TOKENS * token_budget)]

    @torch.no_grad()
    def read(self, last: int) -> tuple[Tensor, Tensor]:
        """Keys (F, N) at the present layer and states (D, N) after block `last`, averaged over occurrences."""
        keys = torch.zeros(self.count, self.model.anatomy.inner_size, device=self.model.device)
        states = torch.zeros(self.count, self.model.anatomy.hidden_size, device=self.model.device)
        module = self.model.model.get_submodule(self.model.anatomy.mlp_output_path(self.layer))
        for part in self.parts:
            with captured_input(module) as found:
                hidden = part.walk.run(part.hidden, self.layer, last)
            rows = torch.arange(len(part.rows), device=hidden.device)
            key = found[0].reshape(*hidden.shape[:2], -1)[rows, part.last]
            keys.index_add_(0, part.owners, key.float() * part.weights)
            states.index_add_(0, part.owners, hidden[rows, part.last].float() * part.weights)
        return keys.T, states.T

    @torch.no_grad()
    def advance(self, layer: int) -> None:
        """Carry every row to the input of `layer`, under the weights as they are now."""
        for part in self.parts:
            part.hidden = part.walk.run(part.hidden, self.layer, layer - 1)
        self.layer = layer

    @torch.no_grad()
    def _prepare(self, rows: list[KeyRow]) -> _Part:
        batch = pad([row.ids for row in rows], self.model.device)
        walk = prefill(self.model, batch)
        device = self.model.device
        return _Part(rows, walk, walk.run(walk.entry, 0, self.layer - 1), batch.lengths - 1,
                     torch.tensor([row.owner for row in rows], device=device),
                     torch.tensor([row.weight for row in rows], device=device)[:, None])


def _grouped(rows: Sequence[KeyRow], token_budget: int) -> list[list[KeyRow]]:
    groups: list[list[KeyRow]] = [[]]
    for row in sorted(rows, key=lambda row: len(row.ids)):
        if groups[-1] and len(row.ids) * (len(groups[-1]) + 1) > token_budget:
            groups.append([])
        groups[-1].append(row)
    return groups
