"""The roles by simulation: every action of every role on every kind of object that the code writes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks import manifest
from tasks.decision_keys import decision_key
from tasks.store import PROBE_KEY, blob_key
from tests.infra.iam import Ask, allowed, holds, listed
from tests.infra.templates import INFRA, KEY_ARN, ROLES, plain, statements, template

BLOB, CANDIDATE = blob_key("0" * 64), manifest.candidate_key("m", "v")
RELEASE, LEDGER = manifest.release_key("m", "v"), manifest.ledger_key("m", 7)
DECISION, POINTER = decision_key("m", "d", "ada"), manifest.channel_key("m", "demo")
ONCE = (RELEASE, DECISION, LEDGER)
KEYS = (BLOB, CANDIDATE, *ONCE, POINTER, PROBE_KEY)
WRITES = {
    "reader": (),
    "editor": (BLOB, CANDIDATE, PROBE_KEY),
    "approver": (DECISION, PROBE_KEY),
    "promoter": (BLOB, RELEASE, LEDGER, POINTER, PROBE_KEY),
}
DELETES = {"reader": (), "editor": (BLOB, PROBE_KEY), "approver": (PROBE_KEY,), "promoter": (BLOB, PROBE_KEY)}
TLS = {"aws:SecureTransport": "true", "s3:TlsVersion": "1.3"}
NEW, SWAP = {**TLS, "s3:if-none-match": "*"}, {**TLS, "s3:if-match": '"1"'}
SHEET = "arn:aws:s3:::BUCKET-inbox/sheets/forget.yaml"


def may(role: str, action: str, key: str, **context: str) -> bool:
    ask = Ask(f"s3:{action}", f"arn:aws:s3:::BUCKET/PREFIX/{key}", context)
    return allowed(ask, statements(role), statements("bucket"))


@pytest.mark.parametrize("name", ["bucket", "inbox", *ROLES])
def test_policy_files_are_those_of_the_template(name: str) -> None:
    document = json.loads((INFRA / "policies" / f"{name}.json").read_text())
    assert document == plain(template("bucket")["Resources"][f"{name.title()}Policy"]["Properties"]["PolicyDocument"])


@pytest.mark.parametrize("role", ROLES)
def test_a_role_writes_and_deletes_what_is_its_own_and_reads_the_rest(role: str) -> None:
    for key in KEYS:
        assert may(role, "GetObject", key, **TLS), key
        assert may(role, "PutObject", key, **NEW) == (key in WRITES[role]), key
        assert may(role, "DeleteObject", key, **TLS) == (key in DELETES[role]), key
        for action in ("DeleteObjectVersion", "PutObjectAcl", "BypassGovernanceRetention", "PutObjectRetention"):
            assert not may(role, action, key, **TLS), (action, key)


def test_nobody_both_makes_and_decides_or_decides_and_releases() -> None:
    writers = {key: [role for role in ROLES if may(role, "PutObject", key, **NEW)] for key in KEYS}
    assert writers[CANDIDATE] == ["editor"]
    assert writers[DECISION] == ["approver"]
    assert writers[POINTER] == writers[RELEASE] == writers[LEDGER] == ["promoter"]


def test_a_pointer_moves_only_from_where_its_writer_saw_it() -> None:
    assert not may("promoter", "PutObject", POINTER, **TLS)
    assert may("promoter", "PutObject", POINTER, **SWAP)
    assert may("promoter", "PutObject", POINTER, **NEW)
    assert not may("editor", "PutObject", CANDIDATE, **TLS)
    assert may("editor", "PutObject", CANDIDATE, **SWAP)


@pytest.mark.parametrize("key", ONCE)
def test_a_record_is_written_once_by_anybody(key: str) -> None:
    anything = [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]
    for context, answer in ((NEW, True), (SWAP, False), (TLS, False)):
        ask = Ask("s3:PutObject", f"arn:aws:s3:::BUCKET/PREFIX/{key}", context)
        assert allowed(ask, anything, statements("bucket")) == answer
    for action in ("s3:DeleteObject", "s3:BypassGovernanceRetention"):
        assert not allowed(Ask(action, f"arn:aws:s3:::BUCKET/PREFIX/{key}", TLS), anything, statements("bucket"))


def test_nothing_goes_without_tls_or_under_another_key() -> None:
    assert not may("reader", "GetObject", BLOB, **{**TLS, "aws:SecureTransport": "false"})
    assert not may("reader", "GetObject", BLOB, **{**TLS, "s3:TlsVersion": "1.1"})
    assert not may("editor", "PutObject", BLOB, **NEW, **{"s3:x-amz-server-side-encryption": "AES256"})
    assert may("editor", "PutObject", BLOB, **NEW, **{"s3:x-amz-server-side-encryption": "aws:kms"})


def test_the_inbox_is_the_editors_alone() -> None:
    """A sheet may hold what a person asked to be forgotten."""
    for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject"):
        assert [role for role in ROLES if allowed(Ask(action, SHEET, TLS), statements(role), statements("inbox"))] == ["editor"]


def test_every_role_opens_the_store_with_its_key_and_only_writers_may_encrypt() -> None:
    for role in ROLES:
        assert allowed(Ask("s3:ListBucket", "arn:aws:s3:::BUCKET", TLS), statements(role), statements("bucket"))
        assert allowed(Ask("kms:Decrypt", KEY_ARN), statements(role))
        assert allowed(Ask("kms:GenerateDataKey", KEY_ARN), statements(role)) == (role != "reader")
        granted = {action for statement in statements(role) for action in listed(statement["Action"])}
        assert not any("*" in action for action in granted)


def test_the_worker_hands_out_named_roles_and_runs_in_its_cluster_only() -> None:
    role = template("workers")["Resources"]["WorkerRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    by_name = {statement["Sid"]: statement for statement in role}
    handed = {part["Fn::GetAtt"][0] for part in by_name["HandOutTheseRoles"]["Resource"]}
    assert handed == {"StartRole", "EditRole", "VerifyRole", "ReleaseRole"}
    assert by_name["HandOutTheseRoles"]["Condition"] == {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
    assert by_name["RunHere"]["Condition"] == {"ArnEquals": {"ecs:cluster": {"Fn::GetAtt": ["Cluster", "Arn"]}}}
    assert not any("iam:" in action for statement in role if statement["Sid"] != "HandOutTheseRoles"
                   for action in listed(statement["Action"]))


@pytest.mark.parametrize(("operator", "wanted", "found", "answer"), [
    ("Null", "true", None, True), ("Null", "true", "x", False), ("Null", "false", None, False),
    ("StringEquals", "a", None, False), ("StringNotEquals", "a", None, True), ("StringNotEquals", "a", "a", False),
    ("StringNotEqualsIfExists", "a", None, True), ("StringNotEqualsIfExists", "a", "b", True),
    ("NumericLessThan", "1.2", "1.1", True), ("NumericLessThan", "1.2", "1.3", False), ("Bool", "false", "false", True)])
def test_conditions_are_read_as_aws_documents_them(operator: str, wanted: str, found: str | None, answer: bool) -> None:
    context: dict[str, Any] = {} if found is None else {"key": found}
    assert holds(operator, "key", [wanted], context) == answer
