"""Where the decision about a candidate stands: whose approvals count, whose do not and why, who is still needed, until when."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Literal

from editors.contract import Frozen
from editors.digest import digest_bytes
from editors.errors import ApprovalMissing, IntegrityError
from tasks.channel import address, read_document
from tasks.decision_keys import decisions_prefix
from tasks.manifest import Candidate, Cause, Decision, parse, serialise
from tasks.store import Store
from validations.approval import Approval, ChannelRule, person
from validations.policy import read_policy

AUTOMATIC = Cause("policy:auto", "NO PERSON LOOKED AT THIS: the channel's policy approves whatever passes the gate")
"""Its name is reserved: no person can be named so."""


class NotEntitled(ApprovalMissing):
    """The policy does not let this person decide."""


class DecisionRecord(Frozen):
    """A decision where it stands; `digest` is its record's SHA-256."""

    uri: str
    digest: str
    decision: Decision


class Standing(Frozen):
    """What was decided about one exact candidate, by the rule of the policy that judged it."""

    rule: ChannelRule
    requesters: tuple[str, ...]
    records: tuple[DecisionRecord, ...]
    """All of them, oldest first."""
    approvals: tuple[DecisionRecord, ...]
    """Those that count, one for each person."""
    expired: tuple[DecisionRecord, ...]
    foreign: tuple[DecisionRecord, ...]
    """About another candidate, or about this one before it was changed."""
    not_entitled: tuple[DecisionRecord, ...]
    """Of people whom the policy does not let decide."""
    refusal: DecisionRecord | None

    @property
    def is_automatic(self) -> bool:
        """Whether the policy approved it in its own name."""
        return any(record.decision.by == AUTOMATIC.by for record in self.approvals)

    @property
    def missing(self) -> int:
        """How many more people must approve."""
        return 0 if self.is_automatic else max(0, self.rule.required - len(self.approvals))

    @property
    def is_approved(self) -> bool:
        """Whether it may be published now."""
        return self.refusal is None and self.missing == 0

    @property
    def deciding(self) -> tuple[DecisionRecord, ...]:
        """The approvals that a release names: as many as are required, the earliest."""
        if self.is_automatic:
            return tuple(record for record in self.approvals if record.decision.by == AUTOMATIC.by)
        return self.approvals[:self.rule.required]

    @property
    def may_approve(self) -> tuple[str, ...]:
        """Those named who may still approve; empty where nobody is named, or nobody is left."""
        done = {person(record.decision.by) for record in self.approvals}
        return tuple(name for name in self.rule.approvers
                     if self.rule.may_approve(name, self.requesters) and person(name) not in done)

    @property
    def next_approver(self) -> str:
        """Whom to put behind `--by`."""
        return self.may_approve[0] if self.may_approve else "NAME"

    @property
    def expires_at(self) -> str | None:
        """When the first of the deciding approvals runs out."""
        moments = [moment for record in self.deciding if (moment := end_of(record.decision, self.rule)) is not None]
        return min(moments).isoformat(timespec="seconds") if moments else None

    @property
    def lacks(self) -> str:
        """What is missing, in words; empty when nothing is."""
        if not self.missing:
            return ""
        has = ", ".join(record.decision.by for record in self.approvals) or "nobody"
        words = f"{has} approved, {self.missing} more of {self.rule.required} needed"
        if self.expired:
            words += "; the approval by " + ", ".join(record.decision.by for record in self.expired) + " ran out"
        if self.rule.approvers:
            left = self.may_approve
            words += f"; may approve: {', '.join(left) or 'nobody'}"
            if len(left) < self.missing:
                words += ", which is too few: name more in the policy's approval.approvers and run the edit again"
        return words


def rule_of(store: Store, candidate: Candidate) -> ChannelRule:
    """Who may approve the candidate, by the policy that judged it; one approval by anybody for records that brought none.

    Raises:
        IntegrityError: the policy is gone or damaged.
    """
    if candidate.rules is None:
        return Approval().rule_for(candidate.channel).model_copy(update={"automatic": True})
    where = f"the policy of version {candidate.version}"
    return read_policy(read_document(store, candidate.rules, where), where).approval.rule_for(candidate.channel)


def read_decisions(store: Store, model: str, digest: str, only: str | None = None) -> tuple[DecisionRecord, ...]:
    """All decisions about a candidate digest, or the one under a key, oldest first.

    Raises:
        IntegrityError: a record is malformed.
    """
    prefix = decisions_prefix(model, digest)
    keys = [only] if only else [stored.key for stored in store.list(prefix) if stored.key[len(prefix)] in "/."]
    records = []
    for key in keys:
        body, where = store.get_bytes(key)[0], address(store, key)
        records.append(DecisionRecord(uri=where, digest=digest_bytes(body), decision=parse(Decision, body, where)))
    return tuple(sorted(records, key=lambda record: (moment_of(record), record.uri)))


def standing(store: Store, candidate: Candidate, moment: datetime | None = None) -> Standing:
    """Where the decision about a candidate stands at `moment` (default: now).

    Raises:
        IntegrityError: a record is malformed, or the policy is gone or damaged.
    """
    rule, now = rule_of(store, candidate), moment or datetime.now(UTC)
    records = read_decisions(store, candidate.model, candidate.digest)
    body = digest_bytes(serialise(candidate))
    groups: dict[str, list[DecisionRecord]] = defaultdict(list)
    for record in records:
        groups[_kind(record.decision, candidate, body, rule, now)].append(record)
    approvals: dict[str, DecisionRecord] = {}
    for record in groups["approvals"]:
        approvals.setdefault(person(record.decision.by), record)
    return Standing(rule=rule, requesters=candidate.requesters, records=records, approvals=tuple(approvals.values()),
                    expired=tuple(groups["expired"]), foreign=tuple(groups["foreign"]),
                    not_entitled=tuple(groups["not_entitled"]), refusal=next(iter(groups["refused"]), None))


def about(candidate: Candidate, decision: Literal["approve", "refuse"], cause: Cause, moment: datetime) -> Decision:
    """A decision about a candidate, to be written."""
    return Decision(model=candidate.model, digest=candidate.digest, record=digest_bytes(serialise(candidate)),
                    verdict=candidate.verdict.sha256, decision=decision, by=cause.by, reason=cause.reason,
                    at=moment.astimezone(UTC).isoformat(timespec="seconds")).sealed()


def end_of(made: Decision, rule: ChannelRule) -> datetime | None:
    """When an approval runs out; None when never."""
    if rule.expires_days is None:
        return None
    try:
        return _aware(made.at) + timedelta(days=rule.expires_days)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _kind(made: Decision, candidate: Candidate, body: str, rule: ChannelRule, now: datetime) -> str:
    if (made.model, made.digest) != (candidate.model, candidate.digest):
        return "foreign"
    asked = person(made.by) in map(person, candidate.requesters)
    if made.decision == "refuse":
        # of a record that was changed since, too: what somebody refused does not pass by being changed
        return "refused" if rule.is_named(made.by) or asked else "not_entitled"
    if made.record != body:
        return "foreign"
    automatic = person(made.by) == person(AUTOMATIC.by)
    if not (rule.automatic if automatic else rule.may_approve(made.by, candidate.requesters)):
        return "not_entitled"
    end = end_of(made, rule)
    return "expired" if end is not None and now >= end else "approvals"


def moment_of(record: DecisionRecord) -> datetime:
    """When something was decided.

    Raises:
        IntegrityError: the record tells no time.
    """
    try:
        return _aware(record.decision.at)
    except ValueError as error:
        raise IntegrityError(f"{record.uri} was decided at {record.decision.at!r}, which is no time",
                             "restore the object from a backup") from error


def _aware(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
