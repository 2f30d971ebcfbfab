"""The change of one hidden state that makes the model say the target, found for many edits at once.

For each edit a vector is added to the residual stream at one layer and token. It minimises the negative log-likelihood of
the target in every context, held by the KL divergence to the unedited model on neutral prompts about the same subject and
by its own norm, inside a ball around zero. Each edit stops by itself.

Differences from the authors' search: requests that share their edited token's whole past share one vector (their key is
the same, so two vectors would contradict each other); step and ball are relative to the state's norm; the steps go down
the gradient, as far as the log-odds of the answer need at their present slope, and are not Adam's; the bare prompt is
searched alone before all contexts are; the loop runs on `SuffixRunner`.

Source: Meng et al. 2022, arXiv:2202.05262, eq. 4; Meng et al. 2023, arXiv:2210.07229, eq. 16.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from editors.contract import Progress, silent
from editors.crew import crew
from editors.errors import Diverged
from editors.loading import LoadedModel
from editors.options import check_ranges
from editors.prefix import PASS_TOKENS
from editors.suffix import CLEAN_TOKENS, Chunk, Row, SuffixRunner

OWNER_TOKENS = 2 * CLEAN_TOKENS
"""Edits are searched in groups: all rows of a group have at most this many times the token budget."""
COARSE = 10.0
"""The bare prompt alone is left at this many times the final loss; further down, other contexts would move it again."""
RESTING = 8.0
"""A state this many times as large as the batch's median is where attention rests, a sequence's first token in later layers:
its key is that of all text's first tokens, and no change short of thousands shows there. Nothing is written to it."""


@dataclass(frozen=True)
class SearchConfig:
    """How the target vector is searched."""

    steps: int = 25
    """Most steps. Range [1, 500]."""
    learning_rate: float = 0.2
    """Longest step, in units of the state's norm. Range (0, 10]. Longer steps are fewer and end at a longer change."""
    goal: float = 0.2
    """A step is as long as the answer's log-odds need to reach this share of `stop_loss` at their present slope. Range
    (0, 1]. Next to nothing makes every step the longest: for long answers that many prompts share, whose loss is rough."""
    momentum: float = 0.0
    """Share of the earlier directions that a step keeps. Range [0, 1)."""
    clamp: float = 0.75
    """Radius of the ball, in units of the state's norm. Range (0, 100]. Authors: 0.75 (MEMIT), 4 (ROME)."""
    stop_loss: float = 0.05
    """An edit is finished when its mean negative log-likelihood per token, in nats, is below this. Range (0, 10]."""
    kl_weight: float = 0.0625
    """Weight of the divergence on neutral prompts about the subject. Range [0, 100]. Authors: 0.0625."""
    decay: float = 0.0
    """Weight of the squared relative norm |change|^2 / |state|^2. Range [0, 100]."""
    token_budget: int = 128
    """Most tokens of one pass that keeps its activations; one without gradient takes eight times as many.
    Range [16, 1048576]. More is faster by little: products of 128 rows run at full speed on a CPU."""

    def __post_init__(self) -> None:
        check_ranges(self, steps="[1, 500]", learning_rate="[1e-9, 10]", clamp="[1e-9, 100]", goal="[1e-12, 1]",
                     momentum="[0, 0.999]", stop_loss="[1e-9, 10]", kl_weight="[0, 100]", decay="[0, 100]",
                     token_budget="[16, 1048576]")


@dataclass(frozen=True)
class TargetRow:
    """One sequence of a search: where an answer is learnt (`labels` after `reads`), or a distribution kept (no labels).

    With `rivals` the labels are to be lost instead: for each read, the tokens that could stand there in its place.
    """

    row: Row
    labels: tuple[int, ...] = field(default=(), repr=False)
    context: int = 0
    """Which of its request's surroundings it stands in; 0 is the first, the bare prompt where there is one."""
    rivals: tuple[tuple[int, ...], ...] = field(default=(), repr=False)


@dataclass
class Search:
    """What a search found. change: (G, D); loss: (G,) final mean negative log-likelihood; steps: (G,) taken."""

    change: Tensor
    loss: Tensor
    steps: Tensor


class Landscape(Protocol):
    """What a search goes down: one loss for every owner's change."""

    runner: SuffixRunner

    def __call__(self, change: Tensor, scale: Tensor, config: SearchConfig) -> tuple[Tensor, Tensor]:
        """Loss (G,) and gradient (G, D) at a change (G, D); the first call for a row is made without a change."""

    def descent(self, loss: Tensor, goal: Tensor) -> Tensor:
        """(G,) by how much the loss would fall on its way to the goal if it went on at its present slope."""


Landscapes = Callable[[SuffixRunner, Sequence[TargetRow], dict[TargetRow, Tensor]], Landscape]
"""Makes the landscape of some rows; the dictionary keeps what it knows of the unedited model from stage to stage."""


def search_targets(model: LoadedModel, layer: int, rows: Sequence[TargetRow], config: SearchConfig,
                   progress: Progress = silent, landscape: Landscapes | None = None) -> Search:
    """Search the change of every owner among `rows`, 0-based and gapless.

    `landscape` None: the likelihood of the answers, held by the kept distributions (`Objective`).

    Raises:
        Diverged: a loss is not finite.
    """
    count = 1 + max(row.row.owner for row in rows)
    found = Search(torch.zeros(count, model.anatomy.hidden_size, device=model.device),
                   torch.zeros(count, device=model.device), torch.zeros(count, dtype=torch.int64))
    groups = _owner_groups(rows, OWNER_TOKENS * config.token_budget)
    parts = [_Part(layer, _owned_by(rows, owners), config, landscape or Objective) for owners in groups]
    for owners, part in zip(groups, crew().carry_out(_search, model, parts), strict=True):
        found.change[owners], found.loss[owners], found.steps[owners] = part.change, part.loss, part.steps
        progress("target search", owners[-1] + 1, count)
    return found


def _owner_groups(rows: Sequence[TargetRow], budget: int) -> list[list[int]]:
    """Owners in order, in groups whose rows have at most `budget` tokens: their keys and values are kept meanwhile."""
    tokens = [0] * (1 + max(row.row.owner for row in rows))
    for row in rows:
        tokens[row.row.owner] += len(row.row.ids)
    groups: list[list[int]] = []
    filled = budget
    for owner, size in enumerate(tokens):
        if filled + size > budget:
            groups.append([])
            filled = 0
        groups[-1].append(owner)
        filled += size
    return groups


def _owned_by(rows: Sequence[TargetRow], owners: list[int]) -> list[TargetRow]:
    return [replace(row, row=replace(row.row, owner=row.row.owner - owners[0])) for row in rows
            if owners[0] <= row.row.owner <= owners[-1]]


@dataclass(frozen=True)
class _Part:
    """A group of owners, whose changes are searched together and depend on no other's."""

    layer: int
    rows: Sequence[TargetRow]
    config: SearchConfig
    landscape: Landscapes


def _search(model: LoadedModel, part: _Part) -> Search:
    """First in the bare prompt alone, which is most of the way, then in all contexts.

    Rows so few that a pass costs as much without the contexts are searched in all of them at once.
    """
    layer, rows, config, landscape = part.layer, part.rows, part.config, part.landscape
    bare = [row for row in rows if row.context == 0]
    tokens = sum(len(row.row.ids) - row.row.anchor for row in bare)
    stages = [bare, rows] if len(bare) < len(rows) and tokens > PASS_TOKENS else [rows]
    descent, clean = Descent(len({row.row.owner for row in rows}), model, config), dict[TargetRow, Tensor]()
    for stage in stages:
        runner = SuffixRunner(model, layer, [row.row for row in stage], config.token_budget)
        objective = landscape(runner, stage, clean)
        whole = stage is rows
        descent.run(objective, state_norms(runner, stage), config.stop_loss * (1 if whole else COARSE),
                    config.steps if whole else -(-config.steps // 2))
    return descent.found


class Descent:
    """Steepest descent in the Euclidean norm of every owner's change; each stops by itself.

    Adam moves every coordinate about equally far, which wastes length: on CounterFact records 50-149 it stopped at a mean
    norm of 102 where steepest descent stopped at 77 and below; written by MEMIT with the same weight, the longer change
    cost 1.86% of perplexity and this one 1.03%. A step's length is where the goal would be reached if all went on as here,
    in the measure that the landscape finds straight.
    """

    def __init__(self, count: int, model: LoadedModel, config: SearchConfig) -> None:
        self.config = config
        self.change = torch.zeros(count, model.anatomy.hidden_size, device=model.device)
        self.velocity = torch.zeros_like(self.change)
        self.found = Search(self.change.clone(), torch.full((count,), float("inf"), device=model.device),
                            torch.zeros(count, dtype=torch.int64))

    def run(self, objective: Landscape, scale: Tensor, stop_loss: float, steps: int) -> None:
        """Go down one objective until each owner's loss is low enough or it has evaluated it `steps` times. scale: (G,)."""
        active = torch.arange(len(scale), device=scale.device)
        is_resting = scale > RESTING * scale.median()
        while True:
            loss, gradient = objective(self.change, scale, self.config)
            if not bool(torch.isfinite(loss).all() and torch.isfinite(gradient).all()):
                raise Diverged("the target search diverged: its loss is not finite", "lower the learning rate")
            self.found.change[active], self.found.loss[active] = self.change[active], loss[active]
            taken = self.found.steps[active.cpu()].to(loss.device)
            going = (loss[active] >= stop_loss) & (taken < steps - 1) & ~is_resting[active]
            active = active[going]
            if not len(active):
                return
            if not bool(going.all()):
                objective.runner.keep(set(active.tolist()))
            goal = torch.full_like(loss, self.config.goal * self.config.stop_loss)
            self._move(active, scale[active], objective.descent(loss, goal)[active], gradient[active])
            self.found.steps[active.cpu()] += 1

    def _move(self, active: Tensor, scale: Tensor, fall: Tensor, gradient: Tensor) -> None:
        tiny = torch.finfo(gradient.dtype).tiny
        slope = gradient.norm(dim=1).clamp(min=tiny)
        length = torch.minimum(fall / slope, self.config.learning_rate * scale)
        self.velocity[active] = self.config.momentum * self.velocity[active] + gradient / slope[:, None]
        direction = self.velocity[active] / self.velocity[active].norm(dim=1, keepdim=True).clamp(min=tiny)
        moved = self.change[active] - length[:, None] * direction
        limit = self.config.clamp * scale[:, None]
        self.change[active] = moved * (limit / moved.norm(dim=1, keepdim=True)).clamp(max=1.0)


def _log_odds(loss: Tensor) -> Tensor:
    """Of an event with probability exp(-loss)."""
    return -loss - torch.log(-torch.expm1(-loss))


class Objective:
    """Likelihood of the answers: loss and gradient of every owner at once.

    `clean` takes the unedited distributions of the kept prompts, log P (reads, V), in the first call for a row, which is
    made without a change.
    """

    def __init__(self, runner: SuffixRunner, rows: Sequence[TargetRow], clean: dict[TargetRow, Tensor]) -> None:
        self.runner, self.rows = runner, rows
        self.row_counts = Counter((row.row.owner, bool(row.labels)) for row in rows)
        self.clean = clean

    def __call__(self, change: Tensor, scale: Tensor, config: SearchConfig) -> tuple[Tensor, Tensor]:
        """Mean negative log-likelihood (G,) and gradient of the whole objective (G, D)."""
        loss, gradient = torch.zeros_like(scale), torch.zeros_like(change)
        for chunk in self.runner.chunks:
            owners = self._owners(chunk)
            part = change[owners].requires_grad_()
            logarithms = self.runner.logits(chunk, part).float().log_softmax(-1)
            labels, weights = self._learnt(chunk, change.device)
            learnt = weights > 0
            values = -weights[learnt] * logarithms[learnt].gather(1, labels[learnt, None])[:, 0]
            loss.index_add_(0, owners[chunk.read_row[learnt]], values.detach())
            total = values.sum() + config.kl_weight * self._divergence(chunk, logarithms)
            gradient.index_add_(0, owners, torch.autograd.grad(total, part)[0])
        return loss, gradient + 2 * config.decay * change / scale.square()[:, None]

    def descent(self, loss: Tensor, goal: Tensor) -> Tensor:
        """(G,) the way is straight in the log-odds of the answer: p / (1 - p), p = exp(-L), with the slope of L over 1 - p."""
        return (_log_odds(goal) - _log_odds(loss)) * -torch.expm1(-loss)

    def _divergence(self, chunk: Chunk, logarithms: Tensor) -> Tensor:
        """Sum over the chunk's kept rows of the mean divergence to the unedited model, shared among their owner's."""
        total = logarithms.new_zeros(())
        sizes = [len(self.rows[number].row.reads) for number in chunk.numbers]
        for number, found in zip(chunk.numbers, logarithms.split(sizes), strict=True):
            row = self.rows[number]
            if not row.labels:
                clean = self.clean.setdefault(row, found.detach())
                divergence = (found.exp() * (found - clean)).sum(-1).mean()
                total = total + divergence / self.row_counts[row.row.owner, False]
        return total

    def _learnt(self, chunk: Chunk, device: torch.device) -> tuple[Tensor, Tensor]:
        """(Q,) the token each read should give, and its weight; 0 where the row is kept."""
        labels, weights = list[int](), list[float]()
        for number in chunk.numbers:
            row = self.rows[number]
            size = len(row.row.reads)
            labels += row.labels or (0,) * size
            weights += [1 / (size * self.row_counts[row.row.owner, True]) if row.labels else 0.0] * size
        return torch.tensor(labels, device=device), torch.tensor(weights, device=device)

    def _owners(self, chunk: Chunk) -> Tensor:
        return torch.tensor([self.rows[number].row.owner for number in chunk.numbers], device=chunk.state.device)


def state_norms(runner: SuffixRunner, rows: Sequence[TargetRow]) -> Tensor:
    """(G,) median norm of each owner's clean states: a first token's state can be a hundred times the others'."""
    norms = runner.clean_states.norm(dim=1)
    count = 1 + max(row.row.owner for row in rows)
    owners = torch.tensor([row.row.owner for row in rows], device=norms.device)
    return torch.stack([norms[owners == owner].median() for owner in range(count)])
