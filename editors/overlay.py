"""Several versions of one base in one model: each holds the tensors that its patches change, nothing else, and lends them.

Two versions side by side then take the memory of one model and of what was edited. Laying over is a change of addresses, so
that it may be done for every single token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from editors.bake import read_tensors
from editors.loading import Checkpoint
from editors.patch import Patch, edited_tensor


def overlay_of(base: Checkpoint, patches: Sequence[Patch], model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameter name -> its value under the whole stack: the bits that a baked folder holds, in the model's dtype and place.

    Args:
        base: What the stack stands on. Its stored tensors are read, for those in memory may be of a wider dtype.
        patches: The stack, in order; empty for the base itself.
        model: `base`, loaded.

    Raises:
        IntegrityError: the base is not the one that the stack was made for, or cannot be read.
    """
    names = list(dict.fromkeys(name for patch in patches for name in patch.parameters))
    overlay = {}
    for name in names:
        parameter = model.get_parameter(name)
        value = edited_tensor(name, read_tensors(base, [name])[name], patches)
        overlay[name] = value.to(parameter.device, parameter.dtype)
    return overlay


@contextmanager
def laid_over(model: torch.nn.Module, overlay: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """The model with the overlay's values in place, inside the block; the very tensors from before after it."""
    parameters = {name: model.get_parameter(name) for name in overlay}
    before = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.data = overlay[name]
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = before[name]
