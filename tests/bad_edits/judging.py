"""From a patch to a verdict, on real files: bake, read back, observe, inspect, compare, judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from editors.bake import bake
from editors.contract import EditBatch, UpdateRequest
from editors.loading import Checkpoint, load
from editors.patch import LowRank, Patch
from validations.comparing import compare
from validations.contract import Verdict
from validations.gate import judge
from validations.observation import Observation, ProbeSettings, Scope
from validations.observing import observe
from validations.policy import policy_for
from validations.probes.integrity import inspect

SETTINGS = ProbeSettings(answer_tokens=6, same_tokens=4, fluency_tokens=24, held_out_tokens=256)


@dataclass(frozen=True)
class Line:
    """A parent and what is asked of its candidates; the parent is observed once."""

    base: Checkpoint
    parent: Checkpoint
    scope: Scope
    baseline: Observation

    @staticmethod
    def of(base: Checkpoint, parent: Checkpoint, requests: Sequence[UpdateRequest],
           history: Sequence[UpdateRequest] = ()) -> Line:
        """The line with its baseline observed."""
        scope = Scope.of(requests, history, SETTINGS)
        return Line(base, parent, scope, observe(load(parent), scope))

    def verdict(self, candidate: Checkpoint, declared: Patch, batch: EditBatch | None = None) -> Verdict:
        """The gate's decision on a candidate folder; `declared` is the patch it claims to be made by."""
        asked = batch or self.batch
        seen = observe(load(candidate), self.scope, reference=self.baseline)
        found = compare(self.baseline, seen, self.batch, self.scope, inspect(self.base, self.parent, candidate, declared))
        return judge(found, policy_for("update"), asked, earlier=self.scope.history,
                     candidate_digest=candidate.digest).verdict

    def bake(self, patch: Patch, folder: Path) -> Checkpoint:
        """The parent under the patch."""
        return bake(self.parent, [patch], folder)

    @property
    def batch(self) -> EditBatch:
        """The batch that is judged."""
        return EditBatch(purpose="update", base_digest=self.base.digest, parent_digest=self.parent.digest,
                         requests=self.scope.requests)


def refusing(verdict: Verdict) -> list[str]:
    """Names of the critical rules that refuse."""
    return [rule.name for rule in verdict.rules if not rule.passed and rule.severity == "critical"]


def scaled(patch: Patch, factor: float) -> Patch:
    """The same low-rank patch, `factor` times as strong."""
    edits = tuple(replace(edit, left=edit.left * factor) for edit in patch.edits if isinstance(edit, LowRank))
    return Patch(edits, patch.provenance)
