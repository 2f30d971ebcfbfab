"""Records name what they hold, and refuse to be read when they do not."""

from __future__ import annotations

import json

import pytest

from editors.errors import ConfigError, IntegrityError
from tasks.manifest import (
    BaseReference,
    Blob,
    Cause,
    Decision,
    LedgerEntry,
    Pointer,
    ReleaseManifest,
    base_version,
    candidate_digest,
    candidate_key,
    channel_key,
    ledger_key,
    parse,
    serialise,
    version_of,
)

BASE = "a" * 64
BLOB = Blob(sha256="b" * 64, size_bytes=3)


def unedited() -> ReleaseManifest:
    digest = candidate_digest(BASE, (), BASE)
    return ReleaseManifest(model="tiny", version=version_of(digest), digest=digest, parent=None,
                           base=BaseReference(name="tiny", digest=BASE), stack=(), checkpoint=BASE,
                           files={"config.json": BLOB}, verdict=None, approvals=())


def entry() -> LedgerEntry:
    return LedgerEntry(kind="open", channel="demo", move=1, by="ada", reason="start", at="2026-01-01T00:00:00+00:00",
                       from_version=None, to_version=base_version(BASE), manifest="c" * 64, verdict=None, decision=None,
                       previous=None)


def test_a_version_names_base_stack_and_checkpoint() -> None:
    digest = candidate_digest(BASE, ["1" * 64, "2" * 64], "3" * 64)
    others = {candidate_digest("c" * 64, ["1" * 64, "2" * 64], "3" * 64),
              candidate_digest(BASE, ["2" * 64, "1" * 64], "3" * 64),
              candidate_digest(BASE, ["1" * 64], "3" * 64),
              candidate_digest(BASE, ["1" * 64, "2" * 64], "4" * 64)}
    assert digest == candidate_digest(BASE, ("1" * 64, "2" * 64), "3" * 64)
    assert len(others | {digest}) == 5
    assert version_of(digest) == digest[:12]


def test_a_record_survives_the_store_byte_for_byte() -> None:
    body = serialise(unedited())
    assert parse(ReleaseManifest, body, "here") == unedited()
    assert serialise(parse(ReleaseManifest, body, "here")) == body


@pytest.mark.parametrize(("field", "value", "complaint"), [
    ("checkpoint", "d" * 64, "have the digest"),
    ("digest", "d" * 64, "have the digest"),
    ("parent", "0" * 12, "has neither"),
    ("verdict", {"sha256": "b" * 64, "size_bytes": 3}, "has neither"),
    ("approvals", [{"by": "eve", "decision": "b" * 64}], "needs none"),
    ("files", {"../../.ssh/authorized_keys": {"sha256": "b" * 64, "size_bytes": 3}}, "String should match pattern"),
    ("files", {"config.json": {"sha256": "../x", "size_bytes": 3}}, "String should match pattern"),
    ("surprise", 1, "Extra inputs"),
])
def test_a_manifest_that_contradicts_itself_is_not_read(field: str, value: object, complaint: str) -> None:
    document = json.loads(serialise(unedited())) | {field: value}
    with pytest.raises(IntegrityError, match=complaint) as caught:
        parse(ReleaseManifest, json.dumps(document).encode(), "s3://bucket/x.json")
    assert "s3://bucket/x.json" in str(caught.value)


def test_bytes_that_are_no_json_are_an_integrity_error() -> None:
    with pytest.raises(IntegrityError, match="not a sound ReleaseManifest"):
        parse(ReleaseManifest, b"<html>", "here")


def test_a_pointer_and_its_entry_must_agree() -> None:
    good = Pointer(model="tiny", channel="demo", version=entry().to_version, manifest="c" * 64, entry=entry())
    document = json.loads(serialise(good)) | {"manifest": "d" * 64}
    with pytest.raises(IntegrityError, match="points elsewhere"):
        parse(Pointer, json.dumps(document).encode(), "here")


@pytest.mark.parametrize("name", ["", "..", "a/b", "../x", "a..b", "-x", "x" * 101, "ü"])
def test_a_name_that_is_no_plain_name_gives_no_key(name: str) -> None:
    for key in (channel_key, candidate_key):
        with pytest.raises(ConfigError, match="cannot name"):
            key("tiny", name)


def test_ledger_keys_sort_as_they_count() -> None:
    keys = [ledger_key("tiny", number) for number in (1, 2, 10, 99, 100, 12345678)]
    assert keys == sorted(keys)


@pytest.mark.parametrize(("by", "reason", "complaint"), [("", "x", "--by is empty"), ("ada", "  ", "--reason is empty")])
def test_nothing_moves_without_a_name_and_a_reason(by: str, reason: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Cause(by, reason)


def test_a_bit_turned_anywhere_in_a_decision_is_seen() -> None:
    decision = Decision(model="tiny", digest="b" * 64, record="a" * 64, verdict="a" * 64, decision="approve", by="ada",
                        reason="looked at it", at="2026-01-01T00:00:00+00:00")
    older, written = serialise(decision), serialise(decision.sealed())
    assert b"seal" not in older, "a record older than the seal keeps its digest"
    assert parse(Decision, older, "here") == decision
    assert parse(Decision, written, "here").by == "ada"
    for place in range(len(written)):
        with pytest.raises(IntegrityError, match="s3://here is not a sound Decision"):
            parse(Decision, written[:place] + bytes([written[place] ^ 1]) + written[place + 1:], "s3://here")
