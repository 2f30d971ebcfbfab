"""The landscape of equal odds: a term's two group words become equally likely, and all else stays as it was.

A term's lean x is the mean over its templates of log P(first) - log P(second). The loss is the divergence of the pair from
(1/2, 1/2) at that mean, log(2 cosh(x / 2)) - log 2, which is x^2 / 8 near the end; the distribution of everything but the
pair, with the pair as one event, is held by its divergence from the unedited model's. One change serves all templates, so
it is their mean that becomes level, and the loss can reach 0.

Source: the equalised distribution as a target, Cai et al. 2024, arXiv:2402.11190 (LSDM), section 4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus

from editors.suffix import SuffixRunner
from editors.target_search import SearchConfig, TargetRow

LEVEL = 0.6931471805599453
"""log 2."""


class Equalising:
    """Loss and gradient of every owner at once. Each row has one read and the two groups' tokens as labels.

    `teachers` takes the unedited distribution (V,) of each row with the pair as one event, at the second label's place.
    """

    def __init__(self, runner: SuffixRunner, rows: Sequence[TargetRow], teachers: dict[TargetRow, Tensor]) -> None:
        self.runner, self.rows, self.teachers = runner, rows, teachers
        self.row_counts = Counter(row.row.owner for row in rows)

    def __call__(self, change: Tensor, scale: Tensor, config: SearchConfig) -> tuple[Tensor, Tensor]:
        """Loss (G,) of the pair, and gradient (G, D) of the whole landscape."""
        lean, slope, held = torch.zeros_like(scale), torch.zeros_like(change), torch.zeros_like(change)
        for chunk in self.runner.chunks:
            rows = [self.rows[number] for number in chunk.numbers]
            owners = torch.tensor([row.row.owner for row in rows], device=change.device)
            part = change[owners].requires_grad_()
            pairs = torch.tensor([row.labels for row in rows], device=change.device)
            share = 1 / torch.tensor([self.row_counts[row.row.owner] for row in rows], device=change.device)
            logarithms = self.runner.logits(chunk, part).float().log_softmax(-1)
            found = logarithms.gather(1, pairs)
            leans = share * (found[:, 0] - found[:, 1])
            lean.index_add_(0, owners, leans.detach())
            slope.index_add_(0, owners, torch.autograd.grad(leans.sum(), part, retain_graph=config.kl_weight > 0)[0])
            if config.kl_weight > 0:
                kept = (share * self._divergences(rows, pooled(logarithms, pairs))).sum()
                held.index_add_(0, owners, torch.autograd.grad(kept, part)[0])
        loss = unevenness(lean)
        gradient = torch.tanh(lean / 2)[:, None] / 2 * slope + config.kl_weight * held
        return loss, gradient + 2 * config.decay * change / scale.square()[:, None]

    def descent(self, loss: Tensor, goal: Tensor) -> Tensor:
        """(G,) the way is straight in the lean, and the loss goes as its square."""
        return 2 * (loss - (loss * goal).sqrt()).clamp(min=0.0)

    def _divergences(self, rows: Sequence[TargetRow], logarithms: Tensor) -> Tensor:
        """(B,) of what each row says besides the pair, from what the unedited model says."""
        teachers = torch.stack([self.teachers.setdefault(row, one.detach().clone())
                                for row, one in zip(rows, logarithms, strict=True)])
        return (teachers.exp() * (teachers - logarithms)).nan_to_num(0.0).sum(-1)


def unevenness(lean: Tensor) -> Tensor:
    """KL((1/2, 1/2) || (p, 1 - p)) with log-odds `lean`, of any shape, in nats; 0 where the two are level."""
    return (softplus(lean) + softplus(-lean)) / 2 - LEVEL


def pooled(logarithms: Tensor, pairs: Tensor) -> Tensor:
    """Log-probabilities (B, V) with each row's pair (B, 2) as one event: its sum at the second place, -inf at the first."""
    together = logarithms.gather(1, pairs).logsumexp(1, keepdim=True)
    changed = logarithms.scatter(1, pairs[:, 1:], together)
    return changed.scatter(1, pairs[:, :1], torch.full_like(together, -torch.inf))
