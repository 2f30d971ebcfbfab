"""An update in place of earlier ones: what is written is the difference, so that the stack adds up to the whole update.

A stack only ever grows, and an edit solved together with all before it is no sum of them. So the earlier ones are taken
out of the weights while it is solved, and its patch holds what is still missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from editors.loading import LoadedModel
from editors.patch import Dense, LowRank, Patch, Scale, TensorEdit, applied, smaller
from editors.stack import inverse

NOTHING = 1e-6
"""Singular values below this share of the largest are what float32 factors leave when they cancel."""


@contextmanager
def taken_back(model: LoadedModel, patches: Sequence[Patch]) -> Iterator[None]:
    """The model without these patches, inside the block; bit-identical to before after it."""
    with applied(model.model, Patch(tuple(edit for patch in reversed(patches) for edit in inverse(patch).edits))):
        yield


def in_place_of(edits: Sequence[TensorEdit], patches: Sequence[Patch]) -> tuple[TensorEdit, ...]:
    """What, after the patches, leaves the weights as the edits alone would: one edit a parameter, as factors where smaller.

    Args:
        edits: Sums, and no scaling of neurons; so are those of the patches.
        patches: What is taken back.
    """
    parts: dict[str, list[TensorEdit]] = {}
    for edit in (*edits, *(one for patch in patches for one in inverse(patch).edits)):
        parts.setdefault(edit.parameter, []).append(edit)
    return tuple(_summed(several) if len(several) > 1 else several[0] for several in parts.values())


def _summed(edits: Sequence[TensorEdit]) -> LowRank | Dense:
    name = edits[0].parameter
    factors = [edit for edit in edits if isinstance(edit, LowRank)]
    if len(factors) == len(edits):
        return smaller(least_rank(LowRank(name, torch.cat([edit.left for edit in factors], dim=1),
                                          torch.cat([edit.right for edit in factors]))))
    shape = next(edit.change for edit in edits if isinstance(edit, Dense))
    changes = [edit.delta(shape) for edit in edits if not isinstance(edit, Scale)]
    return Dense(name, torch.stack(changes).sum(dim=0).float())


def least_rank(edit: LowRank) -> LowRank:
    """The same update by as few factors as it has directions: those of edits that take one another back cancel."""
    (left, core), (right, other) = torch.linalg.qr(edit.left.double()), torch.linalg.qr(edit.right.double().T)
    first, sizes, second = torch.linalg.svd(core @ other.T, full_matrices=False)
    rank = max(1, int((sizes > NOTHING * sizes[0]).sum()))
    return LowRank(edit.parameter, (left @ first[:, :rank] * sizes[:rank]).float().contiguous(),
                   (second[:rank] @ right.T).float().contiguous())
