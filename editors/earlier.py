"""What earlier edits of a line leave for later ones: the keys they wrote, which a patch keeps in its memory.

A solver that holds them changes their outputs no more than it must, and a sequence of batches comes out as one batch
would (METHODS: sequential MEMIT with all earlier keys in the system is the one-shot solution).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from editors.patch import Patch

KEYS = "keys."
SAME_KEY = 0.02
"""A key this near to a new one, relative to its norm, belongs to the fact that is written anew: it is let go."""


def remembered(keys: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A patch's memory of the keys it wrote. keys: parameter name -> (F, N)."""
    return {f"{KEYS}{parameter}": held.float().cpu() for parameter, held in keys.items()}


def earlier_keys(patches: Sequence[Patch], parameter: str, new: Tensor) -> Tensor | None:
    """The keys (F, M) that earlier patches wrote into a parameter, but for those that are written anew.

    Args:
        patches: What the model carries, in stack order.
        parameter: The FFN output matrix.
        new: (F, N) the keys about to be written.

    Returns:
        float64 on the device of `new`; None where there are none.
    """
    found = [patch.memory[f"{KEYS}{parameter}"] for patch in patches if f"{KEYS}{parameter}" in patch.memory]
    if not found:
        return None
    held, new = torch.cat(found, dim=1).to(new.device, torch.float64), new.double()
    held = held[:, _unlike(held, new)]
    return held if held.shape[1] else None


def joined(*parts: Tensor | None) -> Tensor | None:
    """Keys of several sources side by side; None where there are none."""
    given = [part.double() for part in parts if part is not None]
    return torch.cat(given, dim=1) if given else None


def _unlike(held: Tensor, new: Tensor) -> Tensor:
    """(M,) bool: which held keys (F, M) belong to none of the new ones (F, N)."""
    return torch.cdist(held.T, new.T).min(dim=1).values > SAME_KEY * held.norm(dim=0)
