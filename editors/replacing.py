"""An update in place of earlier ones: what is written is the difference, so that the stack adds up to the whole update.

A stack only ever grows, and an edit solved together with all before it is no sum of them. So the earlier ones are taken
out of the weights while it is solved, and its patch holds what is still missing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from editors.patch import Dense, LowRank, Patch, TensorEdit, smaller
from editors.stack import inverse

NOTHING = 1e-6
"""Singular values below this share of the largest are what float32 factors leave when they cancel."""


def taking_back(patches: Sequence[Patch]) -> Patch:
    """One patch that takes all of these out of the weights, as far as one sum can."""
    return Patch(tuple(edit for patch in reversed(patches) for edit in inverse(patch).edits))


def merged(edits: Sequence[TensorEdit]) -> tuple[TensorEdit, ...]:
    """The same sums with one edit a parameter, as factors where they are smaller. None of them scales neurons."""
    parts: dict[str, list[TensorEdit]] = {}
    for edit in edits:
        parts.setdefault(edit.parameter, []).append(edit)
    return tuple(_sum(several) if len(several) > 1 else several[0] for several in parts.values())


def _sum(edits: Sequence[TensorEdit]) -> LowRank | Dense:
    name = edits[0].parameter
    factors = [edit for edit in edits if isinstance(edit, LowRank)]
    if len(factors) == len(edits):
        return smaller(least_rank(LowRank(name, torch.cat([edit.left for edit in factors], dim=1),
                                          torch.cat([edit.right for edit in factors]))))
    change = next(edit.change for edit in edits if isinstance(edit, Dense))
    return Dense(name, Patch(tuple(edits)).delta(name, change).float())


def least_rank(edit: LowRank) -> LowRank:
    """The same update by as few factors as it has directions: those of edits that take one another back cancel."""
    (left, core), (right, other) = torch.linalg.qr(edit.left.double()), torch.linalg.qr(edit.right.double().T)
    first, sizes, second = torch.linalg.svd(core @ other.T, full_matrices=False)
    rank = max(1, int((sizes > NOTHING * sizes[0]).sum()))
    return LowRank(edit.parameter, (left @ first[:, :rank] * sizes[:rank]).float().contiguous(),
                   (second[:rank] @ right.T).float().contiguous())
