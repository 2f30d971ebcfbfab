"""How many values of a space a model holds likelier than one of them, without reading those that cannot be.

Values share their beginnings, so a tree is walked: each beginning is read once, on the keys and values of the one before
it, many beginnings of many trees at a time; the last token of a value needs only a distribution. A log-probability only
falls as a value goes on, so a beginning already less likely than the secret is counted out with all that follow (branch
and bound); the count stays exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from editors.cached import forward
from editors.loading import LoadedModel
from validations.forgetting.spaces import Space
from validations.reading import Reading, Tokens, batches, read
from validations.scoring import score

TIED_NATS = 1e-4
"""Log-probabilities this close count as equal: the same value read in other company differs by up to a tenth of it."""
TOKENS_AT_MOST = 3072
"""Of the keys and values of beginnings that are read together; one such batch a level of the tree is held."""
ROWS_AT_MOST = 192


@dataclass(frozen=True)
class Tree:
    """A space and one of its values. `nodes_at_most` None: until all is counted."""

    space: Space = field(repr=False)
    secret: Tokens = field(repr=False)
    nodes_at_most: int | None = None


@dataclass
class Count:
    """What was found. `above` and `tied` leave the secret out."""

    log_prob: float
    """Of the secret after the prompt and what all values begin with (nats)."""
    above: int = 0
    tied: int = 0
    nodes: int = 0
    is_whole: bool = True
    """False where the tree took more nodes than it may; the counts are then of a part."""


@dataclass(frozen=True, repr=False)
class _Open:
    """A beginning: its tree, its node there, its log-probability, whether the secret begins so, and how it is read on."""

    tree: int
    node: Any
    log_prob: float
    length: int
    is_secret: bool
    row: int = 0
    token: int = 0


def counted(model: LoadedModel, trees: Sequence[Tree]) -> list[Count]:
    """Count in every tree. The model is unchanged.

    Returns:
        One count a tree, in order. A model whose probabilities are not numbers counts nothing above.
    """
    counts: dict[int, Count] = {}
    for batch in batches([tree.space.prompt for tree in trees]):
        counts.update(zip(batch, _Walk.of(model, [trees[index] for index in batch]).run(), strict=True))
    return [counts[index] for index in range(len(trees))]


def may_lead_above(reached: np.ndarray, bound: float) -> np.ndarray:
    """Which beginnings are likely enough to lead to a value as likely as the secret. reached: (branches,) float64."""
    alive: np.ndarray = reached >= bound - TIED_NATS
    return alive


@dataclass
class _Walk:
    """Trees that are walked together, depth first, so that few batches are held at a time."""

    model: LoadedModel
    trees: Sequence[Tree]
    counts: list[Count]
    reading: Reading

    @staticmethod
    def of(model: LoadedModel, trees: Sequence[Tree]) -> _Walk:
        reading = read(model, [tree.space.prompt for tree in trees])
        scores = score(model, reading, [(row, tree.secret) for row, tree in enumerate(trees)])
        return _Walk(model, trees, [Count(float(sum(one.log_probs))) for one in scores], reading)

    @torch.inference_mode()
    def run(self) -> list[Count]:
        """Walk to the end."""
        roots = [_Open(number, tree.space.root, 0.0, 0, True) for number, tree in enumerate(self.trees)]
        waiting = list(self._opened(self.reading, roots))
        while waiting:
            parents, chunk = waiting.pop()
            chunk = [one for one in chunk if self._is_allowed(one.tree)]
            if chunk:
                waiting += self._opened(_read_on(self.model, parents, chunk), chunk)
        return self.counts

    def _is_allowed(self, number: int) -> bool:
        """Whether the tree may read one node more; notes it."""
        count, most = self.counts[number], self.trees[number].nodes_at_most
        count.is_whole = count.is_whole and (most is None or count.nodes < most)
        count.nodes += count.is_whole
        return count.is_whole

    def _opened(self, reading: Reading, held: Sequence[_Open]) -> Iterator[tuple[Reading, list[_Open]]]:
        """Beginnings one token longer that may lead above the secret, in chunks; complete values are counted at once."""
        log_probs = reading.log_probs
        found = [longer for row, one in enumerate(held) for longer in self._followed(one, row, log_probs[row])]
        parents = Reading(reading.cache, reading.mask, reading.lengths, reading.logits[:, :0])
        size = max(1, min(ROWS_AT_MOST, TOKENS_AT_MOST // (reading.mask.shape[1] + 1)))
        for start in range(0, len(found), size):
            yield parents, found[start:start + size]

    def _followed(self, one: _Open, row: int, log_probs: torch.Tensor) -> Iterator[_Open]:
        tree, count = self.trees[one.tree], self.counts[one.tree]
        branches = tree.space.branches(one.node)
        tokens = [branch.token for branch in branches]
        reached = one.log_prob + log_probs[tokens].double().cpu().numpy()
        alive = np.flatnonzero(may_lead_above(reached, count.log_prob)).tolist()
        for branch, log_prob in ((branches[place], float(reached[place])) for place in alive):
            is_secret = one.is_secret and branch.token == tree.secret[one.length]
            if branch.node is not None:
                yield _Open(one.tree, branch.node, log_prob, one.length + 1, is_secret, row, branch.token)
            else:
                others = branch.count - is_secret
                count.above += others * (log_prob > count.log_prob + TIED_NATS)
                count.tied += others * (abs(log_prob - count.log_prob) <= TIED_NATS)


def _read_on(model: LoadedModel, parents: Reading, chunk: Sequence[_Open]) -> Reading:
    """One token more for each of the chunk."""
    device = model.device
    state = parents.select(torch.tensor([one.row for one in chunk], device=device))
    ids = torch.tensor([[one.token] for one in chunk], device=device)
    mask = torch.cat([state.mask, torch.ones_like(ids)], dim=-1)
    logits, cache = forward(model, ids, mask, state.lengths[:, None], state.cache, last_only=True)
    return Reading(cache, mask, state.lengths + 1, logits[:, -1])
