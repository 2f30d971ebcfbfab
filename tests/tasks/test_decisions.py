"""An approval is about one exact digest under one exact verdict, and is said once."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from editors.errors import ApprovalMissing, GateRefused, IntegrityError, NotFound, PromotionConflict
from tasks.decision_keys import decision_key, single_decision_key
from tasks.decisions import AUTOMATIC, approve_automatically, decide, find, require
from tasks.manifest import Blob, Candidate, Cause, parse, serialise
from tasks.store import Store
from tests.tasks.release_line import ADA, MODEL, make_edit, stage, tamper

pytestmark = pytest.mark.flow
BOB = Cause("bob", "the paraphrases sound odd")


@pytest.fixture
def store(release_store: Store) -> Store:
    return release_store


def test_without_a_decision_nothing_is_approved(store: Store, tmp_path: Path) -> None:
    candidate = stage(store, make_edit(tmp_path / "edit", 1))
    with pytest.raises(ApprovalMissing, match="waits for approval") as caught:
        require(store, candidate)
    assert f"suture approve {candidate.version}" in caught.value.hint


def test_an_approval_lets_exactly_its_digest_out(store: Store, tmp_path: Path) -> None:
    candidate = stage(store, make_edit(tmp_path / "edit", 1))
    other = stage(store, make_edit(tmp_path / "other", 2))
    made = decide(store, MODEL, candidate.digest, "approve", ADA)
    assert require(store, candidate).deciding == (made,)
    assert made.decision.verdict == candidate.verdict.sha256
    with pytest.raises(ApprovalMissing, match=f"version {other.version} waits"):
        require(store, other)


def test_a_digest_with_the_right_beginning_is_not_enough(store: Store, tmp_path: Path) -> None:
    candidate = stage(store, make_edit(tmp_path / "edit", 1))
    with pytest.raises(ApprovalMissing, match=f"has the digest {candidate.digest}"):
        decide(store, MODEL, candidate.version + "0" * 52, "approve", ADA)
    with pytest.raises(NotFound):
        decide(store, MODEL, "0" * 64, "approve", ADA)


def test_nobody_takes_back_what_he_said(store: Store, tmp_path: Path) -> None:
    candidate = stage(store, make_edit(tmp_path / "edit", 1))
    first = decide(store, MODEL, candidate.digest, "approve", ADA)
    for decision, by in (("approve", "Ada "), ("refuse", "ada")):
        with pytest.raises(PromotionConflict, match=r"was approved already, by ada at .*: the CEO changed"):
            decide(store, MODEL, candidate.digest, decision, Cause(by, "on second thoughts"))
    assert find(store, MODEL, candidate.digest) == (first,)


def test_a_refusal_ends_it_before_and_after_an_approval(store: Store, tmp_path: Path) -> None:
    candidate = stage(store, make_edit(tmp_path / "edit", 1))
    decide(store, MODEL, candidate.digest, "approve", ADA)
    decide(store, MODEL, candidate.digest, "refuse", BOB)
    with pytest.raises(ApprovalMissing, match=r"was refused by bob at .*: the paraphrases sound odd"):
        require(store, candidate)
    with pytest.raises(PromotionConflict, match=r"was refused already, by bob"):
        decide(store, MODEL, candidate.digest, "approve", Cause("eve", "looks fine"))


def test_saying_the_same_again_changes_nothing(store: Store, tmp_path: Path) -> None:
    candidate = stage(store, make_edit(tmp_path / "edit", 1))
    assert decide(store, MODEL, candidate.digest, "refuse", BOB) == decide(store, MODEL, candidate.digest, "refuse", BOB)


def test_of_two_who_decide_at_once_the_refusal_is_heard(store: Store, tmp_path: Path) -> None:
    candidate = stage(store, make_edit(tmp_path / "edit", 1))

    def say(decision: str) -> str:
        try:
            return decide(store, MODEL, candidate.digest, decision, Cause(decision, "at once")).decision.by
        except PromotionConflict as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(say, ("approve", "refuse")))
    assert answers[1] == "refuse"
    assert answers[0] == "approve" or "refused already, by refuse at" in answers[0]
    with pytest.raises(ApprovalMissing, match="was refused by refuse"):
        require(store, candidate)


def test_a_refusal_is_final_for_the_policy_too(store: Store, tmp_path: Path) -> None:
    candidate = stage(store, make_edit(tmp_path / "edit", 1))
    decide(store, MODEL, candidate.digest, "refuse", BOB)
    assert approve_automatically(store, candidate).refusal.decision.by == "bob"
    with pytest.raises(ApprovalMissing, match=r"was refused by bob at .*: the paraphrases sound odd"):
        require(store, candidate)


def test_a_candidate_changed_after_its_approval_is_not_approved(store: Store, tmp_path: Path) -> None:
    candidate = stage(store, make_edit(tmp_path / "edit", 1))
    decide(store, MODEL, candidate.digest, "approve", ADA)
    files = {**candidate.files, "config.json": Blob(sha256="0" * 64, size_bytes=1)}
    with pytest.raises(ApprovalMissing, match="changed after its approval"):
        require(store, candidate.model_copy(update={"files": files}))


def test_what_the_gate_refused_nobody_can_approve(store: Store, tmp_path: Path) -> None:
    candidate = stage(store, make_edit(tmp_path / "edit", 1, passed=False))
    assert candidate.state == "refused"
    for attempt in (lambda: decide(store, MODEL, candidate.digest, "approve", ADA),
                    lambda: approve_automatically(store, candidate), lambda: require(store, candidate)):
        with pytest.raises(GateRefused, match="can be shown and pulled, never promoted"):
            attempt()
    assert find(store, MODEL, candidate.digest) == ()


def test_the_policy_approves_loudly(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    candidate = stage(store, make_edit(tmp_path / "edit", 1))
    with caplog.at_level(logging.WARNING):
        stands = approve_automatically(store, candidate)
    made = stands.deciding[0].decision
    assert (made.by, made.reason) == (AUTOMATIC.by, AUTOMATIC.reason)
    assert "policy:auto: no person looked at it" in caplog.text
    assert require(store, candidate) == stands


def test_an_approval_copied_from_another_version_is_worth_nothing(store: Store, tmp_path: Path) -> None:
    candidate = stage(store, make_edit(tmp_path / "edit", 1))
    other = stage(store, make_edit(tmp_path / "other", 2))
    decide(store, MODEL, candidate.digest, "approve", ADA)
    body, _ = store.get_bytes(decision_key(MODEL, candidate.digest, "ada"))
    tamper(store, decision_key(MODEL, other.digest, "ada"), body)
    with pytest.raises(ApprovalMissing, match=f"approves the candidate {candidate.digest}"):
        require(store, other)
    tamper(store, decision_key(MODEL, other.digest, "ada"), json.dumps({"decision": "approve"}).encode())
    with pytest.raises(IntegrityError, match="not a sound Decision"):
        require(store, other)


def test_a_record_of_the_time_when_there_was_one_for_each_still_counts(store: Store, tmp_path: Path) -> None:
    candidate = stage(store, make_edit(tmp_path / "edit", 1))
    decide(store, MODEL, candidate.digest, "approve", ADA)
    body, _ = store.get_bytes(decision_key(MODEL, candidate.digest, "ada"))
    store.remove(decision_key(MODEL, candidate.digest, "ada"))
    tamper(store, single_decision_key(MODEL, candidate.digest), body)
    assert [record.decision.by for record in require(store, candidate).deciding] == ["ada"]
    with pytest.raises(PromotionConflict, match="was approved already, by ada"):
        decide(store, MODEL, candidate.digest, "refuse", Cause("ada", "on second thoughts"))
    decide(store, MODEL, candidate.digest, "refuse", BOB)
    with pytest.raises(ApprovalMissing, match="was refused by bob"):
        require(store, candidate)


def test_a_candidate_older_than_its_rules_keeps_its_digest(store: Store, tmp_path: Path) -> None:
    candidate = stage(store, make_edit(tmp_path / "edit", 1))
    assert {"rules", "requesters"}.isdisjoint(json.loads(serialise(candidate)))
    assert parse(Candidate, serialise(candidate), "here") == candidate
