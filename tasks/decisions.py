"""Approval: write-once records about one exact candidate, whose digest and whole record each of them names.

It is a state in the store, not a sleeping process: people approve or refuse whenever they like, through whichever door,
each in a record of his own, and promotion counts what is there. Who may, and how many must, says the policy that judged the
candidate: it lies in the store under the digest that the candidate and its verdict name, so no other can take its place. One
refusal ends it. A candidate that the gate refused cannot be approved by anybody.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Literal

from editors.digest import digest_bytes
from editors.errors import ApprovalMissing, GateRefused, PromotionConflict
from tasks.channel import address, read_candidate
from tasks.decision_keys import decision_key
from tasks.manifest import Candidate, Cause, Decision, serialise, version_of
from tasks.standing import AUTOMATIC, DecisionRecord, NotEntitled, Standing, about, read_decisions, rule_of, standing
from tasks.store import Store
from tasks.store_errors import ImmutableConflict
from validations.approval import ChannelRule, person

__all__ = ["AUTOMATIC", "DecisionRecord", "NotEntitled", "Standing", "approve_automatically", "check_gate", "decide", "find",
           "require", "standing"]

logger = logging.getLogger(__name__)


def find(store: Store, model: str, digest: str) -> tuple[DecisionRecord, ...]:
    """What was decided about this candidate digest, by anybody, oldest first.

    Raises:
        IntegrityError: a record is malformed.
    """
    return read_decisions(store, model, digest)


def decide(store: Store, model: str, digest: str, decision: Literal["approve", "refuse"], cause: Cause,
           moment: datetime | None = None) -> DecisionRecord:
    """Approve or refuse one exact candidate. The same person saying the same again changes nothing.

    Raises:
        NotFound: there is no such candidate.
        ApprovalMissing: the version's digest is another one than `digest`.
        NotEntitled: the policy does not let this person decide.
        GateRefused: the gate refused it, so it cannot be approved.
        PromotionConflict: this person said otherwise before, or somebody refused; the message names who, when and why.
    """
    candidate = read_candidate(store, model, version_of(digest))
    if candidate.digest != digest:
        raise ApprovalMissing(f"version {candidate.version} has the digest {candidate.digest}, not {digest}",
                              f"look at it before you decide: suture show {candidate.version}")
    if decision == "approve":
        check_gate(candidate)
    _check_entitled(candidate, rule_of(store, candidate), decision, cause.by)
    moment = moment or datetime.now(UTC)
    stands = standing(store, candidate, moment)
    if decision == "approve" and stands.refusal is not None:
        raise _final(stands.refusal.decision)
    made = about(candidate, decision, cause, moment)
    own = [record for record in stands.records if person(record.decision.by) == person(cause.by)]
    if own and own[-1] not in stands.expired:
        return _said_before(own[-1], made)
    key, body = decision_key(model, digest, person(cause.by), len(own) + 1), serialise(made)
    try:
        store.put_new(key, body)
    except ImmutableConflict:
        return _said_before(read_decisions(store, model, digest, key)[0], made)
    return DecisionRecord(uri=address(store, key), digest=digest_bytes(body), decision=made)


def approve_automatically(store: Store, candidate: Candidate) -> Standing:
    """Approve in the name of the policy, for demo channels, and say so loudly; an earlier decision stands.

    Raises:
        GateRefused: the gate refused the candidate.
        NotEntitled: its policy wants people to decide.
    """
    check_gate(candidate)
    stands = standing(store, candidate)
    if stands.refusal is not None or stands.is_approved:
        return stands
    logger.warning("version %s is approved by %s: no person looked at it", candidate.version, AUTOMATIC.by)
    decide(store, candidate.model, candidate.digest, "approve", AUTOMATIC)
    return standing(store, candidate)


def require(store: Store, candidate: Candidate, moment: datetime | None = None) -> Standing:
    """The approvals of exactly this candidate as it was looked at; enough of them, of people who may, and none run out.

    Raises:
        GateRefused: the gate refused it.
        ApprovalMissing: approvals are missing or ran out, somebody refused, or the candidate is not what was approved.
    """
    check_gate(candidate)
    version = candidate.version
    stands = standing(store, candidate, moment)
    if stands.refusal is not None:
        made = stands.refusal.decision
        raise ApprovalMissing(f"version {version} was refused by {made.by} at {made.at}: {made.reason}",
                              "change the sheet and make another version: suture edit SHEET")
    if stands.is_approved:
        return stands
    if stands.foreign:
        other = stands.foreign[-1]
        raise ApprovalMissing(f"{other.uri} approves the candidate {other.decision.digest} whose record is "
                              f"{other.decision.record}, but version {version} is {candidate.digest} and its record is "
                              f"{digest_bytes(serialise(candidate))}",
                              f"it was judged anew or changed after its approval: suture show {version}")
    raise ApprovalMissing(f"version {version} waits for approval: {stands.lacks}",
                          f"suture approve {version} --by {stands.next_approver} --reason \"...\"")


def check_gate(candidate: Candidate) -> None:
    """Refuse what the gate refused.

    Raises:
        GateRefused: its state is `refused`.
    """
    if candidate.state == "refused":
        raise GateRefused(f"the gate refused version {candidate.version}; it can be shown and pulled, never promoted",
                          f"see which rules: suture show {candidate.version}")


def _check_entitled(candidate: Candidate, rule: ChannelRule, decision: str, by: str) -> None:
    where = f"the policy of version {candidate.version}"
    if person(by) == person(AUTOMATIC.by):
        if candidate.rules is None or rule.automatic:
            return
        raise NotEntitled(f"{where} wants people to approve for channel {candidate.channel}; {by} is no person",
                          f'suture approve {candidate.version} --by NAME --reason "..."')
    asked = person(by) in map(person, candidate.requesters)
    if not rule.is_named(by) and not (decision == "refuse" and asked):
        raise NotEntitled(f"{by} may not decide on version {candidate.version}: {where} names {', '.join(rule.approvers)} "
                          f"for channel {candidate.channel}",
                          f"ask one of them; see who decided: suture show {candidate.version}")
    if decision == "approve" and not rule.may_approve(by, candidate.requesters):
        raise NotEntitled(f"{by} asked for version {candidate.version} and may not approve it: {where} has own_requests: false",
                          f"ask somebody else; see who decided: suture show {candidate.version}")


def _said_before(first: DecisionRecord, wanted: Decision) -> DecisionRecord:
    made = first.decision
    same = (made.decision, made.reason, made.digest, made.record)
    if same != (wanted.decision, wanted.reason, wanted.digest, wanted.record):
        raise _final(made)
    return first


def _final(made: Decision) -> PromotionConflict:
    done = {"approve": "approved", "refuse": "refused"}[made.decision]
    return PromotionConflict(
        f"version {version_of(made.digest)} was {done} already, by {made.by} at {made.at}: {made.reason}",
        "a decision is final: promote it, or make another version: suture edit SHEET")
