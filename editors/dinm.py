"""DINM: tune one FFN output matrix until safe answers come, held by what the model says elsewhere.

The layer is the one where safe and own answers differ most, each layer measured by its own length
(`locate.hidden_contrast`); it is found anew for every batch, unless the batch's location tells it already. The change of
that matrix is then tuned by Adam:

    L = edit_weight * mean -log P(safe answer | unsafe prompt) + KL(edited || parent),

the divergence taken at every answer token of the batch's harmless prompts, with the model's own answers, and of ordinary
chat questions or openings of text. Everything up to the matrix is constant and read once (`finetune.prepared`).

The tuning stops when every safe answer is learnt. What Adam moved is more than is needed: the change is then cut to the
least rank that still passes and drawn back along its ray to the least length that does.

What we changed, and why. In the released code the constraint's logits are made without a gradient, so the divergence has
no effect and ten steps are taken whatever they do: here it has one. The layer is kept from the first case for all later
ones: here it is the batch's. One general question holds the model there: here harmless uses of the same words do too.

Source: Wang et al. 2024, "Detoxifying Large Language Models via Knowledge Editing", arXiv:2403.14472, section 4, eqs. 3-6.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from editors.contract import EditBatch, Estimate, Location, Progress, silent
from editors.corpus import openings
from editors.costs import RowSize, Work, estimate_of
from editors.detoxify_request import DetoxifyRequest
from editors.errors import Diverged
from editors.facts import QUESTIONS
from editors.finetune import Part, prepared
from editors.loading import LoadedModel
from editors.locate.hidden_contrast import hidden_contrast
from editors.options import check_ranges, config_from
from editors.own_answers import encoded_pair, own_pairs, safe_pairs
from editors.patch import Patch
from editors.prompts import Encoded
from editors.prospect import Prospect
from editors.provenance import provenance_of
from editors.suffix import Row
from editors.target_search import Search, TargetRow
from editors.writing import as_edit

DRAWN_BACK = 6
"""Halvings of the ray: the length is found to 1/64."""


@dataclass(frozen=True)
class DinmConfig:
    """Options of DINM. The layers among which the batch's own is chosen come with the location."""

    learning_rate: float = 1e-3
    """Adam's step, in the weight's own unit. Range (0, 1]. Authors: 5e-4 (Llama 2), 1e-5 (Mistral)."""
    steps: int = 30
    """Most steps. Range [1, 500]. Authors: 10, and never fewer."""
    edit_weight: float = 0.1
    """Weight of the safe answers against the divergence. Range (0, 100]. Authors: 0.1."""
    stop_loss: float = 0.2
    """A safe answer is learnt when its mean negative log-likelihood per token, in nats, is below this. Range (0, 10]."""
    general: int = 16
    """Ordinary questions, or openings of text, in the constraint. Range [0, 1000]. Authors: one."""
    own_tokens: int = 12
    """Tokens of the model's own answer in the constraint. Range [1, 256]."""
    token_budget: int = 1024
    """Most tokens of one pass that keeps its activations. Range [16, 1048576]."""

    def __post_init__(self) -> None:
        check_ranges(self, learning_rate="(0, 1]", steps="[1, 500]", edit_weight="(0, 100]", stop_loss="(0, 10]",
                     general="[0, 1000]", own_tokens="[1, 256]", token_budget="[16, 1048576]")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> DinmConfig:
        """The config for a sheet's options.

        Raises:
            ConfigError: an option is unknown or outside its range.
        """
        return config_from(cls, options, "dinm")


class Tuning:
    """Losses of one matrix's change: safe answers to be learnt, and what the unedited model says at kept rows.

    Args:
        model: The model, unchanged.
        layer: Whose FFN output matrix is tuned.
        learnt: Prompts with safe answers.
        kept: Prompts with the model's own answers.
        token_budget: The most tokens of one pass.
    """

    def __init__(self, model: LoadedModel, layer: int, learnt: Sequence[Encoded], kept: Sequence[Encoded],
                 token_budget: int) -> None:
        self.model, self.layer = model, layer
        self.learnt, self.kept = (prepared(model, layer, [_row(one) for one in rows], token_budget) if rows else []
                                  for rows in (learnt, kept))
        with torch.no_grad():
            self.clean = [self._logarithms(part, None) for part in self.kept]

    def answer_losses(self, change: Tensor, backward: float = 0.0) -> Tensor:
        """(R,) mean negative log-likelihood of each safe answer; with `backward`, that many times the gradient of their
        mean is added to the change's.
        """
        losses, count = [], sum(len(part.state) for part in self.learnt)
        for part in self.learnt:
            loss = -self._logarithms(part, change).gather(1, part.labels[:, None])[:, 0]
            rows = _by_row(part, loss)
            losses.append(rows.detach())
            if backward:
                (backward * rows.sum() / count).backward(inputs=[change])
        return torch.cat(losses)

    def divergence(self, change: Tensor, *, backward: bool = False) -> float:
        """Mean KL(edited || parent) of the kept rows, in nats a token; with `backward`, its gradient is added."""
        total, count = 0.0, sum(len(part.state) for part in self.kept)
        for part, clean in zip(self.kept, self.clean, strict=True):
            found = self._logarithms(part, change)
            mean = _by_row(part, (found.exp() * (found - clean)).sum(-1)).sum() / count
            total += float(mean.detach())
            if backward:
                mean.backward(inputs=[change])
        return total

    def _logarithms(self, part: Part, change: Tensor | None) -> Tensor:
        hidden = part.state if change is None else part.state + (part.keys @ change.T).to(part.state.dtype)
        hidden = part.walk.run(hidden, self.layer + 1, self.model.anatomy.layer_count - 1)
        norm, head = self.model.model.get_submodule(self.model.anatomy.final_norm), self.model.model.get_output_embeddings()
        return head(norm(hidden[part.read_row, part.read_column])).float().log_softmax(-1)


def tuned(tuning: Tuning, config: DinmConfig, progress: Progress = silent) -> tuple[Tensor, int]:
    """The change (D, F) after the steps that teach every safe answer, and how many they were.

    Raises:
        Diverged: a loss is not finite.
    """
    anatomy = tuning.model.anatomy
    change = torch.zeros(anatomy.hidden_size, anatomy.inner_size, device=tuning.model.device, requires_grad=True)
    optimiser = torch.optim.Adam([change], lr=config.learning_rate)
    for step in range(config.steps):
        optimiser.zero_grad()
        losses = tuning.answer_losses(change, config.edit_weight)
        kept = tuning.divergence(change, backward=True)
        if not bool(torch.isfinite(losses).all()) or not isfinite(kept):
            raise Diverged("dinm diverged: its loss is not finite", "lower the learning rate")
        progress("tuning", step + 1, config.steps)
        if float(losses.max()) < config.stop_loss:
            return change.detach(), step
        optimiser.step()
    return change.detach(), config.steps


@torch.no_grad()
def least_passing(change: Tensor, losses: Callable[[Tensor], Tensor], enough: float) -> tuple[Tensor, Tensor]:
    """The change as factors left (D, r), right (r, F): least rank, then least length, whose losses stay below `enough`.

    A change whose own losses are above may lose no more of them.
    """
    left, sizes, right = torch.linalg.svd(change.double(), full_matrices=False)
    limit = max(enough, float(losses(change).max()) * (1 + 1e-6))

    def passes(rank: int, share: float) -> bool:
        part = (left[:, :rank] * sizes[:rank] * share) @ right[:rank]
        return float(losses(part.float()).max()) <= limit

    rank = 1
    while rank < len(sizes) and not passes(rank, 1.0):
        rank = min(2 * rank, len(sizes))
    low, high = 0.0, 1.0
    for _ in range(DRAWN_BACK):
        middle = (low + high) / 2
        low, high = (low, middle) if passes(rank, middle) else (middle, high)
    return left[:, :rank] * sizes[:rank] * high, right[:rank]


class Dinm:
    """The editor. Constructed with its frozen config; `plan` leaves the model bit-identical."""

    name: ClassVar[str] = "dinm"
    purposes: ClassVar[tuple[str, ...]] = ("detoxify",)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Dinm:
        """The editor for a sheet's options; raises ConfigError for an unknown one or one outside its range."""
        return cls(DinmConfig.from_options(options))

    def __init__(self, config: DinmConfig | None = None) -> None:
        self.config = config or DinmConfig()

    def estimate(self, ahead: Prospect) -> Estimate:
        """Bytes, FLOPs and seconds as if every step were taken; every token of a row carries a gradient."""
        prompts = [one.prompt for request in ahead.batch.detoxifies for part in (request.unsafe, request.benign)
                   for one in part]
        lengths = [len(ahead.tokenizer(prompt)["input_ids"]) + 2 * self.config.own_tokens for prompt in prompts]
        lengths += [3 * self.config.own_tokens] * self.config.general
        rows = tuple(RowSize(size, size, size, self.config.own_tokens, self.config.steps) for size in lengths)
        return estimate_of(ahead, Work(ahead.layers, len(rows), self.config.token_budget, rows, uses_moments=False))

    def plan(self, model: LoadedModel, batch: EditBatch, location: Location, statistics: Path,  # noqa: ARG002
             progress: Progress = silent, earlier: Sequence[Patch] = ()) -> Patch:  # noqa: ARG002
        """The patch that carries out the batch, in one layer; neither statistics nor earlier patches are used.

        Raises:
            ArchitectureError: the family normalises its FFN output.
            SheetError: no request has unsafe prompts.
            Diverged: the loss is not finite.
        """
        model.anatomy.require_plain_output(self.name)
        located = [layer for layer in location.layers if layer == location.traced_peak]
        layer = located[0] if located else hidden_contrast(model, batch).peak(location.layers)
        kept = own_pairs(model, constraint(model, batch.detoxifies, self.config.general), self.config.own_tokens)
        learnt = safe_pairs(model, batch)
        tuning = Tuning(model, layer, learnt, kept, self.config.token_budget)
        change, steps = tuned(tuning, self.config, progress)
        left, right = least_passing(change, tuning.answer_losses, self.config.stop_loss)
        with torch.no_grad():
            losses = tuning.answer_losses((left @ right).float())
        edits = (as_edit(model, layer, left, right),)
        found = Search(change, losses, torch.full((len(losses),), steps))
        return Patch(edits, provenance_of(self.name, self.config, model, batch, location, edits, None, found))


def constraint(model: LoadedModel, requests: Sequence[DetoxifyRequest], general: int) -> list[Encoded]:
    """Prompts whose answers are kept: harmless ones of the batch, and `general` ordinary ones of the first request's form."""
    kept = [encoded_pair(model, request, one.prompt, "") for request in requests for one in request.benign]
    if requests[0].form == "chat":
        questions = json.loads(QUESTIONS.read_text(encoding="utf-8"))
        chosen = questions[::max(1, len(questions) // max(general, 1))][:general]
        return kept + [encoded_pair(model, requests[0], question, "") for question in chosen]
    return kept + [Encoded(tuple(ids), len(ids), len(ids) - 1) for ids in openings(model)[:general]]


def _row(pair: Encoded) -> TargetRow:
    first = min(pair.prompt_length, len(pair.ids) - 1)
    reads = tuple(range(first - 1, len(pair.ids) - 1))
    return TargetRow(Row(pair.ids, pair.anchor, 0, reads), pair.ids[first:])


def _by_row(part: Part, values: Tensor) -> Tensor:
    """(B,) mean over each row's reads."""
    total = values.new_zeros(len(part.state)).index_add(0, part.read_row, values)
    return total / part.read_row.bincount(minlength=len(total)).clamp(min=1)
