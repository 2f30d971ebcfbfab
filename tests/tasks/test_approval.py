"""Who may approve is the policy's to say, and no other policy can take its place afterwards."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from editors.errors import ApprovalMissing, IntegrityError, PromotionConflict
from editors.loading import Checkpoint
from tasks.candidate import stage_candidate
from tasks.channel import read, read_candidate, read_release
from tasks.decision_keys import decision_key
from tasks.decisions import AUTOMATIC, NotEntitled, approve_automatically, decide, find, require, standing
from tasks.manifest import BaseReference, Candidate, Cause, candidate_key, serialise
from tasks.publish import point, publish, publish_base, rollback
from tasks.standing import about
from tasks.store import Store, blob_key
from tests.tasks.release_line import ADA, CHANNEL, MODEL, Made, make_edit, tamper
from validations.policy import Policy, policy_for

pytestmark = pytest.mark.flow
THREE = ("ann", "bob", "eve")


@pytest.fixture
def store(release_store: Store) -> Store:
    return release_store


def policy(**approval: Any) -> Policy:
    return Policy.model_validate(policy_for("update").model_dump() | {"approval": approval})


def ruled(made: Made, rules: Policy, requesters: tuple[str, ...] = ("tester",)) -> Made:
    verdict = made.dossier.verdict.model_copy(update={"policy_digest": rules.digest})
    return replace(made, dossier=replace(made.dossier, verdict=verdict, policy=rules, requesters=requesters))


def staged(store: Store, tmp_path: Path, requesters: tuple[str, ...] = ("tester",), **approval: Any) -> Candidate:
    made = ruled(make_edit(tmp_path / "edit", 1), policy(**approval), requesters)
    return stage_candidate(store, made.dossier, made.baked).candidate


def base_of(tmp_path: Path) -> tuple[BaseReference, Checkpoint]:
    baked = Checkpoint(tmp_path / "base")
    return BaseReference(name="tiny-base", digest=baked.digest), baked


def approve(store: Store, candidate: Candidate, by: str, moment: datetime | None = None) -> None:
    decide(store, MODEL, candidate.digest, "approve", Cause(by, f"{by} looked"), moment)


def test_as_many_different_people_as_required_approve(store: Store, tmp_path: Path) -> None:
    candidate = staged(store, tmp_path, approvers=THREE, required=2)
    with pytest.raises(ApprovalMissing, match="nobody approved, 2 more of 2 needed; may approve: ann, bob, eve"):
        require(store, candidate)
    approve(store, candidate, "eve")
    with pytest.raises(ApprovalMissing, match="eve approved, 1 more of 2 needed; may approve: ann, bob") as caught:
        require(store, candidate)
    assert f"suture approve {candidate.version} --by ann" in caught.value.hint
    with pytest.raises(PromotionConflict, match="approved already, by eve"):
        decide(store, MODEL, candidate.digest, "refuse", Cause("EVE", "no"))
    approve(store, candidate, "ann")
    assert {record.decision.by for record in require(store, candidate).deciding} == {"ann", "eve"}


def test_a_stranger_has_no_say(store: Store, tmp_path: Path) -> None:
    candidate = staged(store, tmp_path, approvers=THREE)
    for decision in ("approve", "refuse"):
        with pytest.raises(NotEntitled, match=r"mallory may not decide on version .*: the policy .* names ann, bob, eve"):
            decide(store, MODEL, candidate.digest, decision, Cause("mallory", "because"))
    assert find(store, MODEL, candidate.digest) == ()


@pytest.mark.parametrize("decision", ["approve", "refuse"])
def test_a_strangers_record_written_past_the_program_counts_for_nothing(store: Store, tmp_path: Path, decision: str) -> None:
    candidate = staged(store, tmp_path, approvers=THREE)
    forged = about(candidate, decision, Cause("mallory", "because"), datetime.now(UTC))
    tamper(store, decision_key(MODEL, candidate.digest, "mallory"), serialise(forged))
    assert standing(store, candidate).refusal is None
    with pytest.raises(ApprovalMissing, match="nobody approved, 1 more of 1 needed"):
        require(store, candidate)


def test_nobody_in_a_team_approves_what_he_asked_for(store: Store, tmp_path: Path) -> None:
    candidate = staged(store, tmp_path, requesters=("Ann", "carl"), approvers=THREE)
    with pytest.raises(NotEntitled, match=r"ann asked for version .* own_requests: false"):
        approve(store, candidate, "ann")
    assert standing(store, candidate).may_approve == ("bob", "eve")
    decide(store, MODEL, candidate.digest, "refuse", Cause("carl", "I asked for the wrong thing"))
    with pytest.raises(ApprovalMissing, match="was refused by carl"):
        require(store, candidate)


def test_a_policy_that_nobody_can_meet_says_so(store: Store, tmp_path: Path) -> None:
    candidate = staged(store, tmp_path, requesters=("ann",), approvers=("ann", "bob"), required=2)
    with pytest.raises(ApprovalMissing, match="may approve: bob, which is too few: name more in the policy"):
        require(store, candidate)


def test_who_works_alone_approves_his_own(store: Store, tmp_path: Path) -> None:
    candidate = staged(store, tmp_path, requesters=("ada",))
    approve(store, candidate, "ada")
    assert require(store, candidate).is_approved


@pytest.mark.parametrize(("approval", "allowed"), [
    ({}, True), ({"required": 2}, False), ({"approvers": THREE}, False), ({"own_requests": False}, False),
    ({"approvers": THREE, "own_requests": True}, True),
    ({"channels": {CHANNEL: {"approvers": THREE}}}, False), ({"channels": {"other": {"approvers": THREE}}}, True),
    ({"own_requests": False, "channels": {CHANNEL: {"own_requests": True}}}, True)])
def test_own_requests_by_default(approval: dict[str, Any], allowed: bool) -> None:
    assert policy(**approval).approval.rule_for(CHANNEL).own_requests is allowed


def test_an_approval_runs_out_and_can_be_given_again(store: Store, tmp_path: Path) -> None:
    candidate = staged(store, tmp_path, approvers=THREE, expires_days=7)
    then = datetime.now(UTC)
    approve(store, candidate, "ann", then)
    assert require(store, candidate, then + timedelta(days=6.9)).expires_at == (then + timedelta(days=7)).isoformat(
        timespec="seconds")
    late = then + timedelta(days=7.1)
    with pytest.raises(ApprovalMissing, match="1 more of 1 needed; the approval by ann ran out"):
        require(store, candidate, late)
    approve(store, candidate, "ann", late)
    assert require(store, candidate, late + timedelta(days=6)).is_approved
    assert len(find(store, MODEL, candidate.digest)) == 2


def test_a_refusal_never_runs_out(store: Store, tmp_path: Path) -> None:
    candidate = staged(store, tmp_path, approvers=THREE, expires_days=1)
    decide(store, MODEL, candidate.digest, "refuse", Cause("bob", "no"), datetime.now(UTC) - timedelta(days=99))
    with pytest.raises(PromotionConflict, match="was refused already, by bob"):
        approve(store, candidate, "ann")


def test_channels_have_rules_of_their_own(store: Store, tmp_path: Path) -> None:
    rules = policy(auto_channels=["play"], approvers=THREE, channels={"production": {"required": 2, "expires_days": 3}})
    production = rules.approval.rule_for("production")
    assert (production.required, production.expires_days, production.approvers) == (2, 3, THREE)
    assert rules.approval.rule_for("staging").required == 1
    assert rules.approval.rule_for("play").automatic
    assert not production.automatic


def test_the_policys_own_name_is_nobodys(store: Store, tmp_path: Path) -> None:
    candidate = staged(store, tmp_path)
    with pytest.raises(NotEntitled, match="wants people to approve for channel demo; policy:auto is no person"):
        approve(store, candidate, AUTOMATIC.by)
    with pytest.raises(NotEntitled):
        approve_automatically(store, candidate)


def test_the_policy_approves_where_it_may_whoever_is_named(store: Store, tmp_path: Path) -> None:
    candidate = staged(store, tmp_path, auto_channels=[CHANNEL], approvers=THREE, required=2)
    assert approve_automatically(store, candidate).is_approved


def test_another_policy_cannot_be_put_in_its_place(store: Store, tmp_path: Path) -> None:
    candidate = staged(store, tmp_path, approvers=THREE, required=2)
    key = candidate_key(MODEL, candidate.version)
    lax = policy()
    store.put_blob(lax.content)
    swapped = json.loads(serialise(candidate)) | {"seal": None, "rules": {"sha256": lax.digest, "size_bytes": len(lax.content)}}
    tamper(store, key, json.dumps(swapped).encode())
    with pytest.raises(IntegrityError, match=f"its rules are {lax.digest}, not the policy"):
        read_candidate(store, MODEL, candidate.version)
    tamper(store, key, serialise(candidate))
    tamper(store, blob_key(candidate.policy), lax.content)
    with pytest.raises(IntegrityError, match=r"the policy of version .* is damaged"):
        require(store, candidate)
    store.remove(blob_key(candidate.policy))
    with pytest.raises(IntegrityError, match=r"the policy of version .* is gone"):
        approve(store, candidate, "ann")


def test_the_verdict_and_the_kept_policy_are_one(store: Store, tmp_path: Path) -> None:
    made = make_edit(tmp_path / "edit", 1)
    other = replace(made, dossier=replace(made.dossier, policy=policy()))
    with pytest.raises(IntegrityError, match="the verdict is about other rules"):
        stage_candidate(store, other.dossier, other.baked)


def test_a_release_names_its_approvals_and_later_ones_change_nothing(store: Store, tmp_path: Path) -> None:
    made = ruled(make_edit(tmp_path / "edit", 1), policy(approvers=THREE, required=2))
    candidate = stage_candidate(store, made.dossier, made.baked).candidate
    now = datetime.now(UTC)
    approve(store, candidate, "bob", now)
    with pytest.raises(ApprovalMissing, match="1 more of 2"):
        publish(store, candidate, made.baked.folder)
    approve(store, candidate, "eve", now + timedelta(seconds=2))
    publish_base(store, MODEL, *base_of(tmp_path))
    release = publish(store, candidate, made.baked.folder)
    assert [one.by for one in read_release(store, MODEL, candidate.version)[0].approvals] == ["bob", "eve"]
    # a clock that goes wrong lets a later approval seem the first
    approve(store, candidate, "ann", now - timedelta(days=1))
    assert publish(store, candidate, made.baked.folder) == release.model_copy(
        update={"transfer": release.transfer.model_copy(update={"moved_blobs": 0, "moved_bytes": 0})})
    assert point(store, release, CHANNEL, ADA).to_version == candidate.version


def test_what_was_refused_after_it_was_published_is_not_pointed_at_again(store: Store, tmp_path: Path) -> None:
    made = ruled(make_edit(tmp_path / "edit", 1), policy(approvers=THREE))
    candidate = stage_candidate(store, made.dossier, made.baked).candidate
    approve(store, candidate, "bob")
    publish_base(store, MODEL, *base_of(tmp_path))
    release = publish(store, candidate, made.baked.folder)
    point(store, release, CHANNEL, ADA)
    decide(store, MODEL, candidate.digest, "refuse", Cause("ann", "complaints"))
    rollback(store, MODEL, CHANNEL, ADA)
    with pytest.raises(ApprovalMissing, match="was refused by ann"):
        point(store, release, CHANNEL, ADA)
    assert read(store, MODEL, CHANNEL).pointer.version != candidate.version
