"""Constrained fine-tuning (FT+L): the honest baseline, gradient steps on one FFN output matrix under a bound per weight.

The requests' answers are learnt by Adam on a change of the matrix, which after every step is cut back so that no weight
has moved further than the bound. There is nothing that holds other keys and no memory of earlier edits: what the model
forgets, the probes will show.

What we changed: the gradient is that of all requests at once (the authors step from batch to batch); the run is cut down
to what the change can reach. Everything up to the matrix is constant, so the keys and the state after the layer are read
once; each step adds keys change' to that state, runs the later layers, and the head at the answers' positions only.
Loss and gradient equal those of the full model.

Source: Zhu et al. 2020, "Modifying Memories in Transformer Models", arXiv:2012.00363, eq. 2; as a baseline of editing
Meng et al. 2022, arXiv:2202.05262, appendix E.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from editors.blocks import Walk, captured_input, pad, prefill
from editors.contract import EditBatch, Estimate, Location, Progress, silent
from editors.costs import RowSize, Work, estimate_of
from editors.errors import ConfigError, Diverged
from editors.facts import facts_of
from editors.loading import LoadedModel
from editors.options import check_ranges, config_from
from editors.patch import Dense, Patch
from editors.prospect import Prospect
from editors.provenance import provenance_of
from editors.target_search import Search, TargetRow


@dataclass(frozen=True)
class FinetuneConfig:
    """Options of constrained fine-tuning. The layer comes with the location."""

    bound: float = 5e-4
    """How far a weight may move, in the weight's own unit. Range (0, 10]. Authors: 5e-4 (GPT-2 XL), 5e-5 (GPT-J)."""
    learning_rate: float = 5e-4
    """Adam's step, in the weight's own unit. Range (0, 1]. Authors: 5e-4."""
    steps: int = 25
    """Most evaluations of the loss; one less is the number of steps. Range [1, 500]. Authors: 25."""
    stop_loss: float = 0.03
    """Learnt when the mean negative log-likelihood per token, in nats, is below this. Range (0, 10]. Authors: 0.03."""
    contexts: int = 0
    """Contexts besides the bare prompt. Range [0, 10]. Authors: 0."""
    position: Literal["auto", "subject_last", "question_last", "prompt_last"] = "auto"
    """What the locate stage notes. Fine-tuning itself changes the matrix at every token."""
    token_budget: int = 128
    """Most tokens of one pass that keeps its activations. Range [16, 1048576]."""

    def __post_init__(self) -> None:
        check_ranges(self, bound="[1e-12, 10]", learning_rate="[1e-12, 1]", steps="[1, 500]", stop_loss="[1e-9, 10]",
                     contexts="[0, 10]", token_budget="[16, 1048576]")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> FinetuneConfig:
        """The config for a sheet's options.

        Raises:
            ConfigError: an option is unknown or outside its range.
        """
        return config_from(cls, options, "finetune")


@dataclass
class Part:
    """Rows that run together: what is constant of them, and what is to be read after the last layer.

    keys: (B, T, F) and state: (B, T, D), both at the layer; reads and labels: (Q,), row by row.
    """

    walk: Walk
    keys: Tensor
    state: Tensor
    read_row: Tensor
    read_column: Tensor
    labels: Tensor


@torch.no_grad()
def prepared(model: LoadedModel, layer: int, rows: Sequence[TargetRow], token_budget: int) -> list[Part]:
    """The rows in passes of like length, each run once up to `layer`."""
    return [_part(model, layer, group) for group in _grouped(rows, token_budget)]


def losses_and_gradient(model: LoadedModel, layer: int, parts: Sequence[Part], change: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's mean negative log-likelihood per token (R,), and the gradient (D, F) of the mean over rows."""
    change = change.detach().requires_grad_()
    gradient, losses = torch.zeros_like(change), []
    count = sum(len(part.state) for part in parts)
    norm, head = model.model.get_submodule(model.anatomy.final_norm), model.model.get_output_embeddings()
    for part in parts:
        hidden = part.state + (part.keys @ change.T).to(part.state.dtype)
        hidden = part.walk.run(hidden, layer + 1, model.anatomy.layer_count - 1)
        logits = head(norm(hidden[part.read_row, part.read_column])).to(change.dtype)
        loss = torch.nn.functional.cross_entropy(logits, part.labels, reduction="none")
        row = torch.zeros(len(part.state), dtype=loss.dtype, device=loss.device)
        row = row.index_add(0, part.read_row, loss) / part.read_row.bincount(minlength=len(row))
        gradient += torch.autograd.grad(row.sum() / count, change)[0]
        losses.append(row.detach())
    return torch.cat(losses), gradient


def constrained_change(model: LoadedModel, layer: int, rows: Sequence[TargetRow], config: FinetuneConfig,
                       progress: Progress = silent) -> Search:
    """The change (D, F) of the layer's FFN output matrix, with the rows' losses under it and the steps taken.

    Raises:
        Diverged: the loss is not finite.
    """
    parts = prepared(model, layer, rows, config.token_budget)
    shape = model.anatomy.hidden_size, model.anatomy.inner_size
    change = torch.zeros(shape, dtype=parts[0].keys.dtype, device=model.device)
    optimiser = torch.optim.Adam([change], lr=config.learning_rate)
    for step in range(config.steps):
        losses, change.grad = losses_and_gradient(model, layer, parts, change)
        if not bool(torch.isfinite(losses).all()):
            raise Diverged("fine-tuning diverged: its loss is not finite", "lower the learning rate")
        progress("fine-tuning", step + 1, config.steps)
        if float(losses.mean()) < config.stop_loss or step == config.steps - 1:
            break
        optimiser.step()
        change.clamp_(-config.bound, config.bound)
    return Search(change, losses, torch.full((len(losses),), step))


class Finetune:
    """The editor. Constructed with its frozen config; `plan` leaves the model bit-identical."""

    name: ClassVar[str] = "finetune"
    purposes: ClassVar[tuple[str, ...]] = ("update",)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Finetune:
        """The editor for a sheet's options; raises ConfigError for an unknown one or one outside its range."""
        return cls(FinetuneConfig.from_options(options))

    def __init__(self, config: FinetuneConfig | None = None) -> None:
        self.config = config or FinetuneConfig()

    def estimate(self, ahead: Prospect) -> Estimate:
        """Bytes, FLOPs and seconds as if every step were taken; every token of a row carries a gradient."""
        facts, scale = ahead.facts(self.config.position, self.config.contexts)
        rows = [(max(target.row.reads) + 1, len(target.row.reads)) for target in facts.targets if target.labels]
        search = tuple(RowSize(length, length, length, reads, self.config.steps) for length, reads in rows)
        return estimate_of(ahead, Work(ahead.layers, round(scale * facts.count), self.config.token_budget, search,
                                       scale=scale, uses_moments=False))

    def plan(self, model: LoadedModel, batch: EditBatch, location: Location, statistics: Path,  # noqa: ARG002
             progress: Progress = silent, earlier: Sequence[Patch] = ()) -> Patch:  # noqa: ARG002
        """The patch that carries out the batch, in one layer; neither statistics nor earlier patches are used.

        Raises:
            ArchitectureError: the family normalises its FFN output.
            ConfigError: the location names more than one layer.
            SheetError: a position is not in its prompt.
            Diverged: the loss is not finite.
        """
        model.anatomy.require_plain_output(self.name)
        if len(location.layers) != 1:
            raise ConfigError(f"finetune edits one layer, got {list(location.layers)}", "give one layer, or use memit")
        layer = location.layers[0]
        facts = facts_of(model, batch, location, self.config.position, self.config.contexts)
        rows = [row for row in facts.targets if row.labels]
        found = constrained_change(model, layer, rows, self.config, progress)
        change = found.change if model.anatomy.layout == "out_in" else found.change.T
        edits = (Dense(model.anatomy.mlp_output_parameter(layer), change.float().contiguous()),)
        return Patch(edits, provenance_of(self.name, self.config, model, batch, location, edits, None, found))


def _part(model: LoadedModel, layer: int, rows: Sequence[TargetRow]) -> Part:
    batch = pad([row.row.ids[:max(row.row.reads) + 1] for row in rows], model.device)
    walk = prefill(model, batch)
    with captured_input(model.model.get_submodule(model.anatomy.mlp_output_path(layer))) as found:
        state = walk.run(walk.entry, 0, layer)
    keys = found[0].reshape(*state.shape[:2], -1)
    reads = [(place, column) for place, row in enumerate(rows) for column in row.row.reads]
    read_row, read_column = torch.tensor(reads, device=state.device).T
    labels = torch.tensor([label for row in rows for label in row.labels], device=state.device)
    return Part(walk, keys.to(torch.promote_types(keys.dtype, torch.float32)), state, read_row, read_column, labels)


def _grouped(rows: Sequence[TargetRow], token_budget: int) -> list[list[TargetRow]]:
    groups: list[list[TargetRow]] = [[]]
    for row in sorted(rows, key=lambda row: len(row.row.ids)):
        if groups[-1] and len(row.row.ids) * (len(groups[-1]) + 1) > token_budget:
            groups.append([])
        groups[-1].append(row)
    return groups
