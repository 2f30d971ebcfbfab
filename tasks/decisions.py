"""Approval: one write-once record about one exact candidate, whose digest and whole record it names.

It is a state in the store, not a sleeping process: a person approves or refuses whenever they like, through whichever
door, and promotion looks for the record. A candidate that the gate refused cannot be approved by anybody.
"""

from __future__ import annotations

import logging
from typing import Literal

from editors.contract import Frozen
from editors.digest import digest_bytes
from editors.errors import ApprovalMissing, GateRefused, NotFound, PromotionConflict
from tasks.channel import address, read_candidate
from tasks.manifest import Candidate, Cause, Decision, decision_key, now, parse, serialise, version_of
from tasks.store import Store
from tasks.store_errors import ImmutableConflict

AUTOMATIC = Cause("policy:auto", "NO PERSON LOOKED AT THIS: the channel's policy approves whatever passes the gate")

logger = logging.getLogger(__name__)


class DecisionRecord(Frozen):
    """A decision where it stands; `digest` is its record's SHA-256."""

    uri: str
    digest: str
    decision: Decision


def find(store: Store, model: str, digest: str) -> DecisionRecord | None:
    """What was decided about this candidate digest; None when nothing was.

    Raises:
        IntegrityError: the record is malformed or is about something else.
    """
    key = decision_key(model, digest)
    try:
        body, _ = store.get_bytes(key)
    except NotFound:
        return None
    return DecisionRecord(uri=address(store, key), digest=digest_bytes(body),
                          decision=parse(Decision, body, address(store, key)))


def decide(store: Store, model: str, digest: str, decision: Literal["approve", "refuse"], cause: Cause) -> DecisionRecord:
    """Approve or refuse one exact candidate. The same person saying the same again changes nothing.

    Raises:
        NotFound: there is no such candidate.
        ApprovalMissing: the version's digest is another one than `digest`.
        GateRefused: the gate refused it, so it cannot be approved.
        PromotionConflict: something was decided already; the message names who, when and what.
    """
    candidate = read_candidate(store, model, version_of(digest))
    if candidate.digest != digest:
        raise ApprovalMissing(f"version {candidate.version} has the digest {candidate.digest}, not {digest}",
                              f"look at it before you decide: suture show {candidate.version}")
    if decision == "approve":
        check_gate(candidate)
    made = Decision(model=model, digest=digest, record=digest_bytes(serialise(candidate)), verdict=candidate.verdict.sha256,
                    decision=decision, by=cause.by, reason=cause.reason, at=now())
    key, body = decision_key(model, digest), serialise(made)
    try:
        store.put_new(key, body)
    except ImmutableConflict as error:
        return _decided_before(store, made, error)
    return DecisionRecord(uri=address(store, key), digest=digest_bytes(body), decision=made)


def approve_automatically(store: Store, candidate: Candidate) -> DecisionRecord:
    """Approve in the name of the policy, for demo channels, and say so loudly; an earlier decision stands.

    Raises:
        GateRefused: the gate refused the candidate.
    """
    found = find(store, candidate.model, candidate.digest)
    if found is not None:
        return found
    logger.warning("version %s is approved by %s: no person looked at it", candidate.version, AUTOMATIC.by)
    return decide(store, candidate.model, candidate.digest, "approve", AUTOMATIC)


def require(store: Store, candidate: Candidate) -> DecisionRecord:
    """The approval of exactly this candidate as it was looked at.

    Raises:
        GateRefused: the gate refused it.
        ApprovalMissing: nobody decided, somebody refused, or the candidate is not what was approved.
    """
    check_gate(candidate)
    version = candidate.version
    found = find(store, candidate.model, candidate.digest)
    if found is None:
        raise ApprovalMissing(f"version {version} waits for approval",
                              f'suture approve {version} --by NAME --reason "..."')
    made = found.decision
    if made.decision == "refuse":
        raise ApprovalMissing(f"version {version} was refused by {made.by} at {made.at}: {made.reason}",
                              "change the sheet and make another version: suture edit SHEET")
    record = digest_bytes(serialise(candidate))
    if (made.model, made.digest, made.record) != (candidate.model, candidate.digest, record):
        raise ApprovalMissing(f"{found.uri} approves the candidate {made.digest} whose record is {made.record}, but version "
                              f"{version} is {candidate.digest} and its record is {record}",
                              f"it was judged anew or changed after its approval: suture show {version}")
    return found


def check_gate(candidate: Candidate) -> None:
    """Refuse what the gate refused.

    Raises:
        GateRefused: its state is `refused`.
    """
    if candidate.state == "refused":
        raise GateRefused(f"the gate refused version {candidate.version}; it can be shown and pulled, never promoted",
                          f"see which rules: suture show {candidate.version}")


def _decided_before(store: Store, wanted: Decision, error: ImmutableConflict) -> DecisionRecord:
    first = find(store, wanted.model, wanted.digest)
    if first is None:
        raise error
    made = first.decision
    if made.model_copy(update={"at": wanted.at}) == wanted:
        return first
    done = {"approve": "approved", "refuse": "refused"}[made.decision]
    raise PromotionConflict(
        f"version {version_of(made.digest)} was {done} already, by {made.by} at {made.at}: {made.reason}",
        "a decision is final: promote it, or make another version: suture edit SHEET",
    ) from error
