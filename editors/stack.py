"""A stack of patches with one taken out, from wherever it stands in the stack.

Undoing is re-applying the stack without the patch on the base, never subtraction. A later patch keeps its edits and its
memory; only the digests of the values it finds are made anew, because they are other values now. Later edits were planned
with the taken one in the weights, so whether they still hold is for the gate to measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from editors.bake import read_tensors
from editors.digest import digest_tensor
from editors.errors import ConfigError
from editors.loading import Checkpoint
from editors.patch import Dense, LowRank, Patch, Scale, TensorEdit, edited_tensor

READDRESSED = "readdressed"
"""Provenance of a later patch: `from`, the digest it had, and `without`, the digest of the patch that was taken out."""


def without(base: Checkpoint, patches: Sequence[Patch], digest: str) -> tuple[Patch, ...]:
    """The stack without the patch `digest`; baked on the base, the remaining edits in order.

    Patches that change no parameter of the taken one are returned as they are, with their digests. Only tensors that the
    taken patch changes are read, one at a time.

    Args:
        base: What the stack stands on.
        patches: The whole stack, in order.
        digest: The patch to take out, by its full digest.

    Raises:
        ConfigError: no patch of the stack has this digest.
        IntegrityError: the base is not the one that the stack was made for, or cannot be read.
    """
    digests = [patch.digest for patch in patches]
    if digest not in digests:
        known = ", ".join(digests) or "none, the stack is empty"
        raise ConfigError(f"no patch {digest} in the stack; it holds: {known}", "name one of these")
    place = digests.index(digest)
    taken, later = patches[place], list(patches[place + 1:])
    found: list[dict[str, str]] = [{} for _ in later]
    for name in taken.parameters:
        if any(name in patch.parameters for patch in later):
            _find(base, patches, place, name, found)
    return (*patches[:place], *(_readdressed(patch, pre_image, digest) for patch, pre_image in zip(later, found, strict=True)))


def inverse(patch: Patch) -> Patch:
    """The patch that takes the weights back, as far as one sum can: what a removal changes, for measuring it.

    Rounding is not taken back, and several edits of one parameter that scale it are not undone exactly.
    """
    return Patch(tuple(_inverse(edit) for edit in patch.edits), {"inverse_of": patch.digest})


def _find(base: Checkpoint, patches: Sequence[Patch], place: int, name: str, found: list[dict[str, str]]) -> None:
    """Enter the digest of what each later patch finds in `name`, when the one at `place` is gone."""
    weight = read_tensors(base, [name])[name]
    # the old digests are about to be replaced: this is the last moment at which a wrong base can show
    edited_tensor(name, weight, patches)
    weight = edited_tensor(name, weight, patches[:place])
    for patch, pre_image in zip(patches[place + 1:], found, strict=True):
        if name in patch.parameters:
            pre_image[name] = digest_tensor(weight)
            weight = edited_tensor(name, weight, [replace(patch, provenance={})])


def _readdressed(patch: Patch, pre_image: dict[str, str], without: str) -> Patch:
    if not pre_image:
        return patch
    known = {**patch.provenance.get("pre_image", {}), **pre_image}
    note = {"from": patch.digest, "without": without}
    return replace(patch, provenance={**patch.provenance, "pre_image": known, READDRESSED: note})


def _inverse(edit: TensorEdit) -> TensorEdit:
    if isinstance(edit, LowRank):
        return replace(edit, left=-edit.left)
    return replace(edit, change=-edit.change) if isinstance(edit, Dense) else _unscaled(edit)


def _unscaled(edit: Scale) -> Scale:
    return replace(edit, factor=1 / edit.factor)
