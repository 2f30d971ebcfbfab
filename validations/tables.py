"""From measurements to one small table a rule: what is judged, what was promised, who is to blame.

No Great Expectations here. Each rule gets its own table, so no row condition can select nothing and pass; a value that
is not finite, or has no parent where the limit needs one, becomes None, which the gate refuses as missing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from editors.contract import EditBatch, EditRequest, updates_of
from editors.forget_request import ForgetRequest, SealedForget
from validations.bias.examination import promised as promised_of_bias
from validations.contract import Measurement, Measurements
from validations.earlier.examination import DEFENCE, LEANING, kept_requests
from validations.earlier.examination import promised as promised_of_earlier
from validations.forgetting.examination import promised
from validations.observation import Scope
from validations.policy import LARGEST, ROUNDING, Policy, PolicyRule
from validations.safety.examination import promised as promised_of_safety

NO_REQUEST = "-"
NAMELESS = {"locality": "neutral prompts", "perplexity": "held-out text", "fluency": "free text"}
"""What to blame where a row belongs to no request and its own name is a digest."""
Z_95 = 1.959964
"""Quantile of the normal distribution that leaves 2.5% above it."""


@dataclass(frozen=True)
class RuleTable:
    """What one rule is judged on. `judged` is aligned with `rows`: the value held against the rule's bounds."""

    rule: PolicyRule
    rows: tuple[Measurement, ...]
    judged: tuple[float | None, ...]
    promised: Mapping[str, int]
    """Request id -> rows its sheet promises for this rule."""

    @property
    def required(self) -> int:
        """Rows without which the rule fails."""
        return max(self.rule.required, sum(self.promised.values()))

    @property
    def is_empty_by_right(self) -> bool:
        """Whether there is nothing to judge and nothing was promised or required."""
        return not self.rows and self.required == 0

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Requests with fewer rows than promised."""
        found = [row.request for row in self.rows]
        return tuple(request for request, count in self.promised.items() if found.count(request) < count)

    @property
    def observed(self) -> float | None:
        """The candidate's aggregate, in the metric's own unit; a ratio for ratio limits; None where it is no number."""
        if self.rule.is_ratio:
            return aggregate(self.rule, self.judged)
        return aggregate(self.rule, [_indicator(self.rule, row.candidate) for row in self.rows])

    @property
    def parent(self) -> float | None:
        """The parent's aggregate, in the metric's own unit."""
        return aggregate(self.rule, [_indicator(self.rule, row.parent) for row in self.rows])

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% confidence interval of a mean over two rows or more, in the metric's own unit."""
        values = [row.candidate for row in self.rows]
        is_mean = self.rule.aggregate == "mean" and not self.rule.is_ratio
        return mean_interval(values) if is_mean and self.observed is not None and len(values) > 1 else None

    @property
    def holds(self) -> bool:
        """This house's own reading of the rule; the gate passes only what Great Expectations passes as well."""
        low, high = self.rule.bounds
        value = aggregate(self.rule, self.judged)
        if value is None or len(self.rows) < max(self.required, 1) or self.unmeasured:
            return False
        values = self.judged if self.rule.aggregate == "every" else (value,)
        return all(one is not None and low <= one <= high for one in values)

    @property
    def to_spare(self) -> float | None:
        """How far what is judged lies inside the limit, negative outside; in the metric's own unit, of a ratio in multiples of
        the parent. None where nothing is limited, where each row is by itself, or where it is no number.
        """
        low, high = self.rule.bounds
        value = None if self.rule.aggregate == "every" else aggregate(self.rule, self.judged)
        if value is None or (low, high) == (-LARGEST, LARGEST):
            return None
        room = min(value - low, high - value) - ROUNDING
        return room if abs(room) > ROUNDING else 0.0

    def blame(self) -> tuple[str, ...]:
        """Request ids that break the limit, worst first; where a row belongs to none, the tensor or kind of text."""
        badness: dict[str, float] = dict.fromkeys(self.unmeasured, math.inf)
        for row, value in zip(self.rows, self.judged, strict=True):
            name = NAMELESS.get(row.probe, row.prompt) if row.request == NO_REQUEST else row.request
            excess = self._excess(value)
            if excess > 0:
                badness[name] = badness.get(name, 0.0) + excess
        return tuple(sorted(badness, key=lambda name: (-badness[name], name)))

    def _excess(self, value: float | None) -> float:
        if value is None:
            return math.inf
        if self.rule.aggregate == "count":
            return value
        low, high = self.rule.bounds
        return max(low - value, value - high, 0.0)


def applied(rule: PolicyRule, batch: EditBatch) -> PolicyRule:
    """The rule as it applies to a batch: where a removal leaves nothing that teaches an answer, none can be required."""
    leaves_answers = batch.purpose != "removal" or bool(batch.updates)
    return rule if leaves_answers or rule.probe != "efficacy" else rule.model_copy(update={"required": 0})


def rule_table(rule: PolicyRule, measurements: Sequence[Measurement], promised: Mapping[str, int]) -> RuleTable:
    """The table of one rule."""
    rows = preferred(rule, measurements)
    return RuleTable(rule, rows, tuple(judged_value(rule, row) for row in rows), promised)


def spare(policy: Policy, measurements: Measurements, batch: EditBatch) -> dict[str, float]:
    """Rule -> `to_spare`, of those that have it: what the verdict's numbers leave to the policy's limits."""
    rooms = {rule.name: rule_table(applied(rule, batch), measurements.rows, {}).to_spare for rule in policy.rules}
    return {name: room for name, room in rooms.items() if room is not None}


def preferred(rule: PolicyRule, measurements: Iterable[Measurement]) -> tuple[Measurement, ...]:
    """The rows the rule judges: per prompt, those of the first of its metrics that was measured there."""
    best: dict[tuple[str, str], int] = {}
    candidates = [row for row in measurements if row.metric in rule.metrics]
    for row in candidates:
        place = (row.request, row.prompt)
        best[place] = min(best.get(place, len(rule.metrics)), rule.metrics.index(row.metric))
    return tuple(row for row in candidates if rule.metrics.index(row.metric) == best[row.request, row.prompt])


def judged_value(rule: PolicyRule, row: Measurement) -> float | None:
    """The number held against `rule.bounds`: the candidate's value, its change from the parent, or their ratio."""
    value: float | None = _indicator(rule, row.candidate)
    if rule.margin is not None or rule.rise is not None:
        value = None if row.parent is None else row.candidate - row.parent
    elif rule.is_ratio:
        value = row.candidate / row.parent if row.parent and 0 < row.parent < math.inf else None
    return value if value is not None and math.isfinite(value) else None


def aggregate(rule: PolicyRule, values: Sequence[float | None]) -> float | None:
    """The rule's aggregate; None when a value is missing or not finite, or there is none. `every` shows the mean."""
    numbers = [value for value in values if value is not None and math.isfinite(value)]
    if not numbers or len(numbers) < len(values):
        return None
    if rule.aggregate == "min":
        return min(numbers)
    if rule.aggregate == "max":
        return max(numbers)
    return math.fsum(numbers) if rule.aggregate == "count" else math.fsum(numbers) / len(numbers)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """95% confidence interval of the mean: that of a share for zeros and ones, else the normal one, not under 0 where no
    value is.
    """
    count, mean = len(values), math.fsum(values) / len(values)
    if all(value in (0.0, 1.0) for value in values):
        return share_interval(mean, count)
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    reach = Z_95 * math.sqrt(variance / count)
    return max(mean - reach, 0.0) if min(values) >= 0 else mean - reach, mean + reach


def share_interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a share of `count`; of none, everything is possible.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference", eq. 2.
    """
    if count == 0:
        return 0.0, 1.0
    shrunk = 1 + Z_95**2 / count
    centre = (share + Z_95**2 / (2 * count)) / shrunk
    reach = Z_95 * math.sqrt(share * (1 - share) / count + Z_95**2 / (4 * count**2)) / shrunk
    return max(centre - reach, 0.0), min(centre + reach, 1.0)


def promises(probe: str, batch: EditBatch, earlier: Sequence[EditRequest]) -> dict[str, int]:
    """How many prompts of a probe each request promises, leaving out those that promise none.

    An earlier request that this batch asks again with another answer is replaced, not lost, and promises nothing.
    """
    if probe in (DEFENCE, LEANING):
        return promised_of_earlier(probe, kept_requests(batch, earlier))
    if batch.purpose == "forget" and probe != "history":
        return promised(probe, [request for request in batch.requests if isinstance(request, ForgetRequest | SealedForget)])
    if batch.purpose == "detoxify" and probe != "history":
        return promised_of_safety(probe, batch.detoxifies)
    if batch.purpose == "debias" and probe != "history":
        return promised_of_bias(probe, batch.debiases)
    if probe in ("efficacy", "history"):
        asked = Scope.of(batch.updates, updates_of(earlier)).history if probe == "history" else batch.updates
        return Counter(request.id for request in asked)
    prompts: dict[str, set[str]] = {
        request.id: {"paraphrase": set(request.paraphrases),
                     "neighbourhood": {neighbour.prompt for neighbour in request.neighbours},
                     "portability": {implication.prompt for implication in request.implications}}.get(probe, set())
        for request in batch.updates}
    return {request: len(asked) for request, asked in prompts.items() if asked}


DIGESTS = PolicyRule(
    name="baseline.digests", aggregate="every", at_least=1, required=3,
    meaning="The baseline is the parent's own, the candidate is another model, and both were measured for this batch.")


def digest_table(measurements: Measurements, batch: EditBatch, candidate_digest: str | None) -> RuleTable:
    """Whether the right things were compared, as rows of 1 and 0, one a claim."""
    claims = {
        "baseline is the parent": measurements.parent_digest == batch.parent_digest,
        "candidate differs from parent": measurements.candidate_digest != measurements.parent_digest,
        "measured for this batch": measurements.batch_digest == batch.digest,
        "candidate is the one on disk": candidate_digest in (None, measurements.candidate_digest),
    }
    rows = [Measurement(request=NO_REQUEST, probe="baseline", metric=DIGESTS.name, prompt=claim, parent=None,
                        candidate=float(holds)) for claim, holds in claims.items()]
    return rule_table(DIGESTS, rows, {})


def _indicator(rule: PolicyRule, value: float | None) -> float | None:
    if rule.aggregate != "count" or value is None or not math.isfinite(value):
        return value
    return float(value != 0)
