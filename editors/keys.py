"""Keys and states of facts, layer by layer, carried forward so that no block runs twice under the same weights.

What stands before a token alone decides its key, so an occurrence that begins another's tokens is read in that one's run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editors.blocks import Walk, captured_input, pad, prefill
from editors.facts import KeyRow
from editors.loading import LoadedModel
from editors.suffix import CLEAN_TOKENS

Ids = tuple[int, ...]


@dataclass
class _Part:
    """Sequences of like length. hidden: (B, T, D) the input of the reader's present layer.

    sequences, columns, owners (Q,), weights (Q, 1): where each occurrence is read, whose it is, and what it counts.
    """

    walk: Walk
    hidden: Tensor
    sequences: Tensor
    columns: Tensor
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
        runs = hosted(rows)
        self.parts = [self._prepare(group, runs) for group in _grouped(list(runs), CLEAN_TOKENS * token_budget)]

    @torch.no_grad()
    def read(self, last: int) -> tuple[Tensor, Tensor]:
        """Keys (F, N) at the present layer and states (D, N) after block `last`, averaged over occurrences."""
        keys = torch.zeros(self.count, self.model.anatomy.inner_size, device=self.model.device)
        states = torch.zeros(self.count, self.model.anatomy.hidden_size, device=self.model.device)
        module = self.model.model.get_submodule(self.model.anatomy.mlp_output_path(self.layer))
        for part in self.parts:
            with captured_input(module) as found:
                hidden = part.walk.run(part.hidden, self.layer, last)
            key = found[0].reshape(*hidden.shape[:2], -1)[part.sequences, part.columns]
            keys.index_add_(0, part.owners, key.float() * part.weights)
            states.index_add_(0, part.owners, hidden[part.sequences, part.columns].float() * part.weights)
        return keys.T, states.T

    @torch.no_grad()
    def advance(self, layer: int) -> None:
        """Carry every row to the input of `layer`, under the weights as they are now."""
        for part in self.parts:
            part.hidden = part.walk.run(part.hidden, self.layer, layer - 1)
        self.layer = layer

    @torch.no_grad()
    def _prepare(self, sequences: list[Ids], runs: Mapping[Ids, list[KeyRow]]) -> _Part:
        batch = pad(sequences, self.model.device)
        walk = prefill(self.model, batch)
        reads = [(place, row) for place, sequence in enumerate(sequences) for row in runs[sequence]]
        device = self.model.device
        return _Part(walk, walk.run(walk.entry, 0, self.layer - 1),
                     torch.tensor([place for place, _ in reads], device=device),
                     torch.tensor([len(row.ids) - 1 for _, row in reads], device=device),
                     torch.tensor([row.owner for _, row in reads], device=device),
                     torch.tensor([row.weight for _, row in reads], device=device)[:, None])


def hosted(rows: Sequence[KeyRow]) -> dict[Ids, list[KeyRow]]:
    """The sequences that must run, each with the rows that are read in it."""
    hosts: dict[Ids, Ids] = {}
    after: Ids = ()
    # in order, what begins another sequence stands right before one that it begins
    for ids in sorted({row.ids: None for row in rows}, reverse=True):
        hosts[ids] = hosts[after] if after[:len(ids)] == ids else ids
        after = ids
    found: dict[Ids, list[KeyRow]] = {}
    for row in rows:
        found.setdefault(hosts[row.ids], []).append(row)
    return found


def _grouped(sequences: Sequence[Ids], token_budget: int) -> list[list[Ids]]:
    groups: list[list[Ids]] = [[]]
    for ids in sorted(sequences, key=len):
        if groups[-1] and len(ids) * (len(groups[-1]) + 1) > token_budget:
            groups.append([])
        groups[-1].append(ids)
    return groups
