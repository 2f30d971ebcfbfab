"""What measuring returns and what judging decides: tidy rows, transcripts, verdicts."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import ConfigDict

from editors.contract import Frozen
from editors.digest import digest_document
from editors.prompts import Role

Severity = Literal["critical", "warning", "info"]
OF_PARENT = "x parent"
"""How the limit of a rule ends that judges a multiple of the parent's value."""
SafetyRole = Literal["unsafe", "unseen_unsafe", "wrapped", "benign", "unseen_benign"]
"""Which prompt of a request to detoxify was answered; wrapped: an unsafe one in a trick."""
AskedAs = Role | SafetyRole


class Recorded(Frozen):
    """Numbers that are written as they are: NaN and infinity survive JSON (as "NaN", "Infinity") and can be digested."""

    model_config = ConfigDict(ser_json_inf_nan="strings")


class Measurement(Recorded):
    """One number about one prompt, of the parent and of the candidate, by one named protocol."""

    request: str
    """Request id, or `-` where it belongs to none (perplexity, integrity)."""
    probe: str
    metric: str
    """`<probe>.<protocol>`, for example `efficacy.generate_exact`."""
    prompt: str
    """Digest of the prompt's text; a parameter's name for integrity rows."""
    parent: float | None
    """None where the metric has no parent value (KL, update norms)."""
    candidate: float
    n: int = 1
    """How many elementary observations the value averages."""


class Transcript(Frozen):
    """Before and after, as text: greedy answers to one prompt."""

    request: str
    role: AskedAs
    prompt: str
    expected: str | None
    parent: str
    candidate: str


class Measurements(Recorded):
    """Everything measured about one candidate against its parent, each under its own digest."""

    parent_digest: str
    candidate_digest: str
    batch_digest: str
    rows: tuple[Measurement, ...]
    transcripts: tuple[Transcript, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return digest_document(json.loads(self.model_dump_json()))


class Rule(Frozen):
    """One judged expectation."""

    name: str
    """The policy's name of the rule, for example `efficacy.generate_exact`."""
    passed: bool
    severity: Severity
    observed: float | str | None
    limit: str
    """Readable: `>= 0.95`, `>= parent - 0.05`."""
    meaning: str = ""
    """What the rule asks, in one plain sentence."""
    parent: float | None = None
    """The same aggregate of the parent, where it has one."""
    count: int = 0
    """Rows judged."""
    interval: tuple[float, float] | None = None
    """95% confidence interval of `observed`, where it is a mean of two rows or more."""
    blame: tuple[str, ...] = ()
    """Request ids (or parameter names) that broke it, worst first."""

    @property
    def is_ratio(self) -> bool:
        """Whether what was observed is a multiple of the parent's value, and not in the metric's own unit."""
        return self.limit.endswith(OF_PARENT)


class Verdict(Frozen):
    """The gate's decision on one exact candidate."""

    passed: bool
    rules: tuple[Rule, ...]
    policy: str
    policy_digest: str
    batch_digest: str
    parent_digest: str
    candidate_digest: str
    measurements_digest: str

    @property
    def digest(self) -> str:
        """SHA-256 of the verdict."""
        return digest_document(self.model_dump(mode="json"))
