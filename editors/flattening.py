"""The landscape of forgetting: the model's own distribution, but for the advantage of the secret.

At each place of the secret the teacher is what the unedited model says there with one number changed: the log-odds of the
secret's token become the median of those that its rivals have, the tokens of never-seen values. The loss is the divergence
from that teacher. So a secret ends in the middle of the values of its form, where a never-seen one is on the average; were
it pushed to the bottom, its low rank would tell of it, and every nat below the middle costs other text.

Elsewhere the unedited distribution is its own teacher (what is known of the subject besides), and where an answer stands in
for the secret its likelihood counts until it is the likelier half.

Source: exposure as a rank among values of one form, Carlini et al. 2019, arXiv:1802.08232, eq. 1; the divergence to a
distribution as if never seen, Eldan and Russinovich 2023, arXiv:2310.02238, section 2.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from editors.options import check_ranges
from editors.suffix import Chunk, SuffixRunner
from editors.target_search import Landscapes, SearchConfig, TargetRow

LIKELY = math.log(2.0)
"""A replacement's negative log-likelihood per token, in nats, below which it is not raised further: it is said more often
than all else together."""
Kind = Literal["secret", "replacement", "kept"]


@dataclass(frozen=True)
class FlatteningConfig:
    """What counts besides the secret."""

    replacement_weight: float = 0.1
    """Weight of the replacement's negative log-likelihood. Range [0, 100]; 0 leaves open what is said instead."""
    teacher_weight: float = 0.1

    def __post_init__(self) -> None:
        check_ranges(self, replacement_weight="[0, 100]")


def flattened(logarithms: Tensor, label: int, rivals: Sequence[int]) -> Tensor:
    """Log-probabilities (V,) with the label's set to the median of its rivals', in one sum again."""
    changed = logarithms.clone()
    changed[label] = torch.minimum(logarithms[label], logarithms[list(rivals)].median())
    return changed.log_softmax(-1)


def kind_of(row: TargetRow) -> Kind:
    """What a row is there for."""
    if not row.labels:
        return "kept"
    return "secret" if row.rivals else "replacement"


def flattening(config: FlatteningConfig) -> Landscapes:
    """The landscape as `search_targets` asks for it."""
    def made(runner: SuffixRunner, rows: Sequence[TargetRow], teachers: dict[TargetRow, Tensor]) -> Flattening:
        return Flattening(runner, rows, teachers, config)

    return made


class Flattening:
    """Divergence from the teachers; loss and gradient of every owner at once.

    `teachers` takes log-probabilities (reads, V) for each row in the first call for it, which is made without a change.
    """

    def __init__(self, runner: SuffixRunner, rows: Sequence[TargetRow], teachers: dict[TargetRow, Tensor],
                 config: FlatteningConfig) -> None:
        self.runner, self.rows, self.teachers, self.config = runner, rows, teachers, config
        self.row_counts = Counter((row.row.owner, kind_of(row)) for row in rows)

    def __call__(self, change: Tensor, scale: Tensor, config: SearchConfig) -> tuple[Tensor, Tensor]:
        """Mean loss of secret and replacement (G,), and gradient of the whole landscape (G, D)."""
        loss, gradient = torch.zeros_like(scale), torch.zeros_like(change)
        weights = {"secret": 1.0, "replacement": self.config.replacement_weight, "kept": config.kl_weight}
        for chunk in self.runner.chunks:
            rows = [self.rows[number] for number in chunk.numbers]
            owners = torch.tensor([row.row.owner for row in rows], device=change.device)
            part = change[owners].requires_grad_()
            values = self._values(chunk, rows, part)
            shares = [weights[kind_of(row)] / self.row_counts[row.row.owner, kind_of(row)] for row in rows]
            values = values * torch.tensor(shares, device=change.device)
            is_sought = torch.tensor([bool(row.labels) for row in rows], device=change.device)
            loss.index_add_(0, owners[is_sought], values[is_sought].detach())
            gradient.index_add_(0, owners, torch.autograd.grad(values.sum(), part)[0])
        return loss, gradient + 2 * config.decay * change / scale.square()[:, None]

    def descent(self, loss: Tensor, goal: Tensor) -> Tensor:
        """(G,) a divergence from a teacher with hardly any mass on the label is straight in the label's log-odds."""
        return (loss - goal).clamp(min=0.0)

    def _values(self, chunk: Chunk, rows: Sequence[TargetRow], change: Tensor) -> Tensor:
        """(B,) what each row of the chunk costs."""
        logarithms = self.runner.logits(chunk, change).float().log_softmax(-1)
        parts = logarithms.split([len(row.row.reads) for row in rows])
        return torch.stack([self._value(row, found) for row, found in zip(rows, parts, strict=True)])

    def _value(self, row: TargetRow, found: Tensor) -> Tensor:
        if kind_of(row) == "replacement":
            return (-found.gather(1, torch.tensor(row.labels, device=found.device)[:, None]).mean() - LIKELY).clamp(min=0.0)
        teacher = self.teachers.get(row)
        if teacher is None:
            teacher = self.teachers[row] = _teacher(row, found.detach())
        divergence = (teacher.exp() * (teacher - found)).sum(-1).mean()
        return divergence if not row.rivals else self.config.teacher_weight * divergence + _lead(row, found)


def _lead(row: TargetRow, found: Tensor) -> Tensor:
    """By how much the labels are likelier than the middle of their rivals, in nats, over places where they are; a mean."""
    leads = [one[label] - one[list(rivals)].median()
             for one, label, rivals in zip(found, row.labels, row.rivals, strict=True) if rivals]
    return torch.stack(leads).clamp(min=0.0).mean()


def _teacher(row: TargetRow, clean: Tensor) -> Tensor:
    """(reads, V) for a row of the unedited model: as it is, or without the labels' advantage."""
    if not row.rivals:
        return clean
    return torch.stack([flattened(one, label, rivals) if rivals else one
                        for one, label, rivals in zip(clean, row.labels, row.rivals, strict=True)])
