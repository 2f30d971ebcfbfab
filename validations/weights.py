"""What changed in the weights, told from files: which tensors are bit-identical, and in what form the others moved."""

from __future__ import annotations

from editors.loading import Checkpoint
from editors.patch import Dense, LowRank, Patch, Scale, TensorEdit
from validations.about import Weights


def changed_weights(parent: Checkpoint, candidate: Checkpoint, patches: tuple[Patch, ...]) -> Weights:
    """How many tensors are the parent's own by digest, and the form of every declared update between the two."""
    before, after = parent.tensor_digests, candidate.tensor_digests
    edits = [edit for patch in patches for edit in patch.edits]
    forms = {name: " + ".join(_form(edit) for edit in edits if edit.parameter == name)
             for name in dict.fromkeys(edit.parameter for edit in edits)}
    return Weights(tensors=len(after), equal=sum(before.get(name) == digest for name, digest in after.items()), forms=forms)


def _form(edit: TensorEdit) -> str:
    if isinstance(edit, LowRank):
        return f"rank {edit.left.shape[1]}"
    if isinstance(edit, Scale):
        return f"{len(edit.neurons)} neurons scaled"
    rows, columns = (*edit.change.shape, 1)[:2]
    return f"full rank {min(rows, columns)}" if isinstance(edit, Dense) else "unknown"
