"""The authors' ROME and MEMIT as one would write them down: the reference that the engine is measured against.

Every step of the target search is a full forward and backward of the whole model, all layers, all positions, all logits,
for the rewriting prompts and the neutral prompt of one request; keys and states are read by full forwards, layer by layer;
the update is a dense solve in F x F. Settings are those that the field's toolkit ships for Llama (METHODS.md 2, 3).
Keys, values and denominators come from one averaged key, as in the editors, so that both write the same thing.

Source: Meng et al. 2022, arXiv:2202.05262, eqs. 2-4; Meng et al. 2023, arXiv:2210.07229, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from editors.blocks import pad
from editors.facts import Facts, KeyRow
from editors.loading import LoadedModel
from editors.patch import LowRank, Patch, applied
from editors.target_search import TargetRow


@dataclass(frozen=True)
class Settings:
    """Authors' defaults: Adam, its rate, most steps, early stop, radius in units of the state's norm, KL and decay weights."""

    steps: int = 25
    learning_rate: float = 0.5
    stop_loss: float = 0.05
    clamp: float = 4.0
    kl_weight: float = 0.0625
    decay: float = 1e-3


class Objective:
    """Loss of one request's rows as a function of the change at (`layer`, edited token): one full run of the model."""

    def __init__(self, model: LoadedModel, layer: int, rows: Sequence[TargetRow]) -> None:
        self.model, self.layer, self.rows = model, layer, rows
        self.batch = pad([row.row.ids for row in rows], model.device)
        with torch.no_grad():
            self.clean = self._logarithms(torch.zeros(model.anatomy.hidden_size, device=model.device))
        self.scale = float(torch.stack([self._state(place).norm() for place in range(len(rows))]).median())

    def __call__(self, change: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
        """Mean negative log-likelihood of the targets, and the whole objective."""
        logarithms = self._logarithms(change)
        losses, divergences = [], []
        for place, row in enumerate(self.rows):
            found = logarithms[place, list(row.row.reads)]
            if row.labels:
                losses.append(-found[range(len(row.labels)), list(row.labels)].mean())
            else:
                clean = self.clean[place, list(row.row.reads)]
                divergences.append((found.exp() * (found - clean)).sum(-1).mean())
        loss = torch.stack(losses).mean()
        kept = torch.stack(divergences).mean() if divergences else loss.new_zeros(())
        return loss, loss + settings.kl_weight * kept + settings.decay * change.norm() / self.scale ** 2

    def _logarithms(self, change: Tensor) -> Tensor:
        def add(_module: torch.nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
            hidden = output if isinstance(output, Tensor) else output[0]
            self.states, hidden = hidden.detach(), hidden.clone()
            for place, row in enumerate(self.rows):
                hidden[place, row.row.anchor] = hidden[place, row.row.anchor] + change
            return hidden if isinstance(output, Tensor) else (hidden, *output[1:])

        handle = self.model.model.get_submodule(self.model.anatomy.block_path(self.layer)).register_forward_hook(add)
        try:
            logits = self.model.model(input_ids=self.batch.ids, attention_mask=self.batch.valid.long(), use_cache=False).logits
        finally:
            handle.remove()
        return logits.log_softmax(-1)

    def _state(self, place: int) -> Tensor:
        return self.states[place, self.rows[place].row.anchor]


def search(model: LoadedModel, layer: int, rows: Sequence[TargetRow], settings: Settings) -> Tensor:
    """The change (D,) for one request."""
    objective = Objective(model, layer, rows)
    change = torch.zeros(model.anatomy.hidden_size, device=model.device, requires_grad=True)
    adam = torch.optim.Adam([change], lr=settings.learning_rate)
    for step in range(settings.steps):
        adam.zero_grad()
        loss, total = objective(change, settings)
        if float(loss.detach()) < settings.stop_loss or step == settings.steps - 1:
            break
        total.backward()
        adam.step()
        limit = settings.clamp * objective.scale
        with torch.no_grad():
            change *= min(1.0, limit / float(change.detach().norm()))
    return change.detach()


def search_all(model: LoadedModel, layer: int, facts: Facts, settings: Settings) -> Tensor:
    """The changes (N, D) of all facts, one after another."""
    return torch.stack([search(model, layer, [row for row in facts.targets if row.row.owner == owner], settings)
                        for owner in range(facts.count)])


def write(model: LoadedModel, layers: Sequence[int], facts: Facts, change: Tensor, moments: dict[int, Tensor],
          covariance_weight: float) -> Patch:
    """MEMIT's layer loop; with one layer and weight 0 it is ROME."""
    target: Tensor | None = None
    patch = Patch(())
    for place, layer in enumerate(layers):
        with applied(model.model, patch):
            keys, _ = read(model, facts.keys, layer)
            _, states = read(model, facts.keys, layers[-1])
        target = states + change.T if target is None else target
        left, right = dense_update(keys, (target - states) / (len(layers) - place), moments[layer], covariance_weight)
        name = model.anatomy.mlp_output_parameter(layer)
        edit = LowRank(name, left, right) if model.anatomy.layout == "out_in" else LowRank(name, right.T, left.T)
        patch = Patch((*patch.edits, edit))
    return patch


def dense_update(keys: Tensor, residuals: Tensor, moment: Tensor, covariance_weight: float) -> tuple[Tensor, Tensor]:
    """R K' (w C + K K')^-1 in F x F; its limit for w = 0, where that matrix has no inverse."""
    keys, residuals, moment = keys.double(), residuals.double(), moment.to(keys.device, torch.float64)
    moment = moment + 1e-6 * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
    if covariance_weight > 0:
        adjusted = torch.linalg.solve(covariance_weight * moment + keys @ keys.T, keys)
        return residuals.float(), adjusted.T.float()
    direction = torch.linalg.inv(moment) @ keys
    return residuals.float(), torch.linalg.solve(direction.T @ keys, direction.T).float()


@torch.no_grad()
def read(model: LoadedModel, rows: Sequence[KeyRow], layer: int) -> tuple[Tensor, Tensor]:
    """Keys (F, N) at `layer` and states (D, N) after it, averaged over occurrences; one full forward a fact."""
    count = 1 + max(row.owner for row in rows)
    keys = torch.zeros(model.anatomy.inner_size, count, device=model.device)
    states = torch.zeros(model.anatomy.hidden_size, count, device=model.device)
    for owner in range(count):
        own = [row for row in rows if row.owner == owner]
        batch = pad([row.ids for row in own], model.device)
        with _captured(model, layer) as found:
            model.model(input_ids=batch.ids, attention_mask=batch.valid.long(), use_cache=False)
        for place, row in enumerate(own):
            last = len(row.ids) - 1
            keys[:, owner] += row.weight * found["key"].reshape(*batch.ids.shape, -1)[place, last]
            states[:, owner] += row.weight * found["state"][place, last]
    return keys, states


@contextmanager
def _captured(model: LoadedModel, layer: int) -> Iterator[dict[str, Tensor]]:
    found: dict[str, Tensor] = {}

    def key(_module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found["key"] = inputs[0].float()

    def state(_module: torch.nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        found["state"] = (output if isinstance(output, Tensor) else output[0]).float()

    handles = (model.model.get_submodule(model.anatomy.mlp_output_path(layer)).register_forward_pre_hook(key),
               model.model.get_submodule(model.anatomy.block_path(layer)).register_forward_hook(state))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
