"""Keys and output gradients at chosen FFN modules, from one forward and one backward of many facts at once.

Blocks below the lowest module run once, without a graph, and are kept: no edit of these modules reaches them. The backward
ends at that module. Logits are made at the target's positions only, and rows are batched under a token budget.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from editors.blocks import Walk, pad, prefill
from editors.loading import LoadedModel
from editors.target_search import TargetRow

Name = TypeVar("Name", bound=Hashable)
CERTAIN = 1e-4
"""An answer with a negative log-likelihood below this, in nats, has the log-odds of this and no gradient."""


@dataclass(frozen=True)
class Reading:
    """N facts under the weights as they are. Averages are over a fact's rows.

    keys: layer -> (F, N), the module's input at the edited token; gradients: layer -> (D, N), of the log-odds of the
    answer with respect to the module's output there; log_odds, loss: (N,), of the whole answer, in nats; scale: (N,)
    the norm of the state that enters the lowest edited block.
    """

    keys: dict[int, Tensor]
    gradients: dict[int, Tensor]
    log_odds: Tensor
    loss: Tensor
    scale: Tensor


@dataclass(frozen=True)
class _Part:
    """Rows of like length. hidden: (B, T, D) the input of the lowest edited block; owners: (B,)."""

    walk: Walk
    hidden: Tensor
    anchors: Tensor
    owners: Tensor
    read_row: Tensor
    read_column: Tensor
    labels: Tensor


class GradientReader:
    """Reads N facts as often as asked, under the weights of that moment.

    Args:
        model: The model; edits are applied to its own parameters by the caller.
        rows: The facts' rows; those with an answer are read. The owners are 0 to N - 1.
        layers: The edited FFN modules; blocks below the lowest run once.
        token_budget: The most tokens (padding included) of one pass.
    """

    def __init__(self, model: LoadedModel, rows: Sequence[TargetRow], layers: Sequence[int], token_budget: int) -> None:
        self.model, self.layers = model, sorted(layers)
        self._paths = {layer: model.anatomy.mlp_output_path(layer) for layer in self.layers}
        self.count = 1 + max(row.row.owner for row in rows)
        self.parts = [self._prepare(group) for group in _grouped([row for row in rows if row.labels], token_budget)]
        self._rows = torch.zeros(self.count, device=model.device)
        for part in self.parts:
            self._rows.index_add_(0, part.owners, torch.ones_like(part.owners, dtype=self._rows.dtype))
        self._norm = model.model.get_submodule(model.anatomy.final_norm)
        self._head = model.model.get_output_embeddings()

    def read(self) -> Reading:
        """Keys, gradients, log-odds and losses; the model is unchanged."""
        shapes, device = self.model.anatomy, self.model.device
        keys = {layer: torch.zeros(self.count, shapes.inner_size, device=device) for layer in self.layers}
        gradients = {layer: torch.zeros(self.count, shapes.hidden_size, device=device) for layer in self.layers}
        log_odds, loss, scale = (torch.zeros(self.count, device=device) for _ in range(3))
        for part in self.parts:
            with torch.enable_grad(), tapped(self.model, self._paths) as (inputs, outputs):
                likelihood = self._likelihood(part)
                odds = _log_odds(likelihood)
                found = torch.autograd.grad(odds.sum(), [outputs[layer] for layer in self.layers])
            share = 1 / self._rows[part.owners]
            for layer, gradient in zip(self.layers, found, strict=True):
                keys[layer].index_add_(0, part.owners, self._at(part, inputs[layer]) * share[:, None])
                gradients[layer].index_add_(0, part.owners, self._at(part, gradient) * share[:, None])
            log_odds.index_add_(0, part.owners, odds.detach() * share)
            loss.index_add_(0, part.owners, -likelihood.detach() * share)
            scale.index_add_(0, part.owners, self._at(part, part.hidden).norm(dim=1) * share)
        return Reading({layer: found.T for layer, found in keys.items()},
                       {layer: found.T for layer, found in gradients.items()}, log_odds, loss, scale)

    def _likelihood(self, part: _Part) -> Tensor:
        """(B,) log P of each row's whole answer; its graph begins at the lowest edited block."""
        hidden = part.hidden.detach().requires_grad_()
        hidden = part.walk.run(hidden, self.layers[0], self.model.anatomy.layer_count - 1)
        logits = self._head(self._norm(hidden[part.read_row, part.read_column])).float()
        chosen = logits.log_softmax(-1).gather(1, part.labels[:, None])[:, 0]
        return torch.zeros(len(part.owners), device=chosen.device).index_add(0, part.read_row, chosen)

    @staticmethod
    def _at(part: _Part, values: Tensor) -> Tensor:
        """(B, width) float32 at the edited tokens; a family may hand its modules the tokens of all rows in one row."""
        values = values.reshape(*part.hidden.shape[:2], -1)
        return values[torch.arange(len(values), device=values.device), part.anchors].float()

    @torch.no_grad()
    def _prepare(self, rows: list[TargetRow]) -> _Part:
        device = self.model.device
        walk = prefill(self.model, pad([row.row.ids[:max(row.row.reads) + 1] for row in rows], device))
        reads = [(place, column) for place, row in enumerate(rows) for column in row.row.reads]
        read_row, read_column = torch.tensor(reads, device=device).T
        return _Part(walk, walk.run(walk.entry, 0, self.layers[0] - 1),
                     torch.tensor([row.row.anchor for row in rows], device=device),
                     torch.tensor([row.row.owner for row in rows], device=device), read_row, read_column,
                     torch.tensor([label for row in rows for label in row.labels], device=device))


@contextmanager
def tapped(model: LoadedModel, paths: Mapping[Name, str]) -> Iterator[tuple[dict[Name, Tensor], dict[Name, Tensor]]]:
    """Inside the block, the last input and output of each of the modules at these paths, the output with its graph."""
    inputs: dict[Name, Tensor] = {}
    outputs: dict[Name, Tensor] = {}
    handles = []
    for site, path in paths.items():
        def keep(_: torch.nn.Module, given: tuple[Tensor, ...], output: Tensor, site: Name = site) -> None:
            inputs[site], outputs[site] = given[0].detach(), output
        handles.append(model.model.get_submodule(path).register_forward_hook(keep))
    try:
        yield inputs, outputs
    finally:
        for handle in handles:
            handle.remove()


def _log_odds(likelihood: Tensor) -> Tensor:
    """Log P - log(1 - P), of log P in nats."""
    likelihood = likelihood.clamp(max=-CERTAIN)
    return likelihood - torch.log(-torch.expm1(likelihood))


def _grouped(rows: Sequence[TargetRow], token_budget: int) -> list[list[TargetRow]]:
    """Rows of like length together, each group within the budget."""
    groups: list[list[TargetRow]] = [[]]
    for row in sorted(rows, key=lambda row: len(row.row.ids)):
        if groups[-1] and len(row.row.ids) * (len(groups[-1]) + 1) > token_budget:
            groups.append([])
        groups[-1].append(row)
    return groups
