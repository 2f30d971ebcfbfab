"""Is the candidate's folder exactly the parent's plus the patch: finite, nothing else changed, not too far, not lost?

Works on the files, shard by shard, without running the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from editors.cast import cast_of
from editors.contract import Progress, silent
from editors.loading import Checkpoint, read_shard
from editors.patch import Patch
from validations.contract import Measurement
from validations.inspection import Inspection

PROBE = "integrity"
ALL = "-"


def inspect(base: Checkpoint, parent: Checkpoint, candidate: Checkpoint, patch: Patch,
            progress: Progress = silent) -> Inspection:
    """Integrity rows of a candidate folder.

    `integrity.finite`: 1 when every weight is finite; one row for each tensor that is not. `.undeclared_changed`: 0, or
    a row of 1 for each tensor that differs from the parent's, is gone or is new, and is not in the patch.
    `.something_changed`: 1 or 0. For each tensor that the patch declares or that changed:
    `.update_relative_norm` ||W' - W||_F / ||W||_F against the parent, `.cumulative_relative_norm` against the base (the
    parent's own beside it). For each that the patch declares: `.cast_loss` and `.cast_noise`, the share of the update
    that rounding to the stored dtype erased, and the noise it added (`editors.cast`); `.foreign_change`, the norm of what
    neither the patch nor rounding explains, relative to the update's.

    Source: Yao et al. 2023 and Gupta et al. 2024, arXiv:2401.07453, for the growth of the norm as a warning of collapse.
    """
    known = (base.tensor_digests, parent.tensor_digests, candidate.tensor_digests)
    changed = {name for name in {*known[1], *known[2]} if known[1].get(name) != known[2].get(name)}
    drifted = {name for name in known[2] if known[0].get(name) != known[2][name]}
    undeclared = sorted(changed - set(patch.parameters))
    rows = [_row("undeclared_changed", name, 1.0) for name in undeclared] or [_row("undeclared_changed", ALL, 0.0)]
    rows.append(_row("something_changed", ALL, float(bool(changed)), n=len(known[2])))
    names = (changed | drifted | set(patch.parameters)) & set(known[0]) & set(known[1])
    broken = []
    for number, shard in enumerate(candidate.shards):
        progress("weights", number, len(candidate.shards))
        tensors = read_shard(candidate.folder / shard)
        broken += [name for name, tensor in sorted(tensors.items()) if not bool(tensor.isfinite().all())]
        for name in sorted(names & set(tensors)):
            change = Change(name, _tensor(base, name), _tensor(parent, name), tensors[name])
            rows += change.rows(patch)
    progress("weights", len(candidate.shards), len(candidate.shards))
    finite = [_row("finite", name, 0.0) for name in broken] or [_row("finite", ALL, 1.0, n=len(known[2]))]
    return Inspection(parent_digest=parent.digest, candidate_digest=candidate.digest, rows=(*finite, *rows))


@dataclass(frozen=True)
class Change:
    """One parameter in the base, in the parent and in the candidate."""

    name: str
    base: torch.Tensor
    parent: torch.Tensor
    candidate: torch.Tensor

    def rows(self, patch: Patch) -> Iterator[Measurement]:
        """Norms of the update, in float64; NaN and infinity pass through for the gate to refuse."""
        base, parent, candidate = self.base.double(), self.parent.double(), self.candidate.double()
        update = candidate - parent
        yield _row("update_relative_norm", self.name, relative_norm(update, parent))
        yield _row("cumulative_relative_norm", self.name, relative_norm(candidate - base, base),
                   parent=relative_norm(parent - base, base))
        edits = [edit for edit in patch.edits if edit.parameter == self.name]
        if edits:
            wanted = patch.delta(self.name, self.parent)
            cast = cast_of(self.parent, self.candidate, wanted)
            yield _row("cast_loss", self.name, cast.loss)
            yield _row("cast_noise", self.name, cast.noise)
            # a rounding moves a number by at most half this much; the rest is for the steps between the two
            rounding = len(edits) * torch.finfo(self.candidate.dtype).eps * torch.maximum(parent.abs(), candidate.abs())
            excess = ((update - wanted).abs() - rounding).clamp(min=0.0)
            yield _row("foreign_change", self.name, relative_norm(excess, wanted))


def relative_norm(change: torch.Tensor, whole: torch.Tensor) -> float:
    """||change||_F / ||whole||_F; 0 where nothing changed, infinite where a zero tensor did."""
    size, reference = float(change.norm()), float(whole.norm())
    if size == 0.0:
        return 0.0
    return size / reference if reference != 0.0 else float("inf")


def _tensor(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    return read_shard(checkpoint.folder / checkpoint.weight_map[name])[name]


def _row(metric: str, name: str, value: float, *, parent: float | None = None, n: int = 1) -> Measurement:
    return Measurement(request="-", probe=PROBE, metric=f"{PROBE}.{metric}", prompt=name, parent=parent,
                       candidate=value, n=n)
