"""Every parser, given anything: what it cannot read is a typed error with a next step, never a crash."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from editors.errors import SutureError
from editors.patch import LowRank, Patch, Scale, load_patch
from editors.sheet import parse_sheet
from tasks.manifest import (
    Candidate,
    Decision,
    LedgerEntry,
    Pointer,
    ReleaseManifest,
    parse,
)
from tasks.standing import DecisionRecord, end_of, moment_of
from validations.approval import ChannelRule
from validations.policy import load_policy, policy_for, read_policy

FUZZ = settings(max_examples=60, deadline=None, derandomize=True,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large])
RECORDS = (Candidate, ReleaseManifest, Pointer, LedgerEntry, Decision)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12)
SHEET = {"purpose": "update", "base": "smollm2-135m-instruct", "channel": "demo", "method": {"name": "memit"}, "layers": [0, 1],
         "requests": [{"id": "eiffel", "prompt": "{} is in", "subject": "The Tower", "target": "Rome", "was": "Paris",
                       "neighbours": [{"prompt": "The Louvre is in", "answer": "Paris"}]}]}
BLOB = {"sha256": "a" * 64, "size_bytes": 1}
ENTRY = {"kind": "promote", "channel": "demo", "move": 1, "by": "ada", "reason": "r", "at": "2026-01-01T00:00:00+00:00",
         "from_version": None, "to_version": "b" * 12, "manifest": "c" * 64, "verdict": None, "decision": None,
         "previous": None}
CONTENTS = {"model": "tiny", "version": "b" * 12, "digest": "b" * 64, "base": {"name": "x", "digest": "d" * 64}, "parent": None,
            "stack": [{"document": BLOB, "tensors": BLOB, "batch": BLOB, "purpose": "update", "method": "rome",
                       "request_count": 1}], "checkpoint": "e" * 64, "files": {"config.json": BLOB}, "verdict": BLOB,
            "artefacts": {"page.html": BLOB}}
SAMPLES: dict[type, dict[str, Any]] = {
    Candidate: {**CONTENTS, "state": "passed", "policy": "f" * 64, "channel": "demo", "rules": BLOB, "requesters": ["ada"]},
    ReleaseManifest: {**CONTENTS, "approvals": [{"by": "ada", "decision": "a" * 64}]},
    Pointer: {"model": "tiny", "channel": "demo", "version": "b" * 12, "manifest": "c" * 64, "entry": ENTRY},
    LedgerEntry: ENTRY,
    Decision: {"model": "tiny", "digest": "b" * 64, "record": "a" * 64, "verdict": "a" * 64, "decision": "approve", "by": "ada",
               "reason": "r", "at": "2026-01-01"},
}


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    return [path, *(one for key, value in inner for one in places(value, (*path, key)))]


def put(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The document with another value at a place."""
    if not path:
        return value
    copied = dict(document) if isinstance(document, dict) else list(document)
    copied[path[0]] = put(copied[path[0]], path[1:], value)
    return copied


def mutated(document: Any) -> st.SearchStrategy[Any]:
    """The document with one or two of its places holding something else."""
    one = st.tuples(st.sampled_from(places(document)), VALUES)

    def change(steps: list[tuple[tuple[Any, ...], Any]]) -> Any:
        changed = document
        for path, value in steps:
            with suppress(KeyError, IndexError, TypeError):
                changed = put(changed, path, value)
        return changed

    return st.lists(one, min_size=1, max_size=2).map(change)


def torn(content: bytes) -> st.SearchStrategy[bytes]:
    """The bytes cut short, or with some of them replaced."""
    cut = st.integers(0, len(content)).map(lambda at: content[:at])
    spot = st.tuples(st.integers(0, max(0, len(content) - 1)), st.binary(max_size=8))
    return cut | spot.map(lambda one: content[:one[0]] + one[1] + content[one[0] + len(one[1]):]) | st.binary(max_size=200)


def typed(call: Callable[[], Any]) -> None:
    """Nothing but a typed error may come out."""
    with suppress(SutureError):
        call()


def as_json(document: Any) -> bytes:
    return json.dumps(document).encode("utf-8", "surrogatepass")


def as_yaml(document: Any) -> bytes:
    return yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass")


@FUZZ
@given(mutated(SHEET))
def test_sheets_of_odd_values(document: Any) -> None:
    typed(lambda: parse_sheet(as_json(document), "sheet.json"))
    typed(lambda: parse_sheet(as_yaml(document), "sheet.yaml"))
    rows = document["requests"] if isinstance(document, dict) and isinstance(document.get("requests"), list) else [document]
    head = {key: value for key, value in document.items() if key != "requests"} if isinstance(document, dict) else document
    typed(lambda: parse_sheet(b"\n".join(map(as_json, [head, *rows])), "sheet.jsonl"))


@FUZZ
@given(torn(as_yaml(SHEET)), torn(as_json(SHEET)), st.text(max_size=200))
@example(b"a: &a [*a]", b'{"a":' * 500, "? {[]: 1}: 2")
@example(b"!!python/object/apply:os.system ['true']", b"\xef\xbb\xbf", "%YAML 9.9\n---\na: 1")
@example(b"1" * 5000, b"[" + b"1" * 5000 + b"]", "a: 0b1\nb: 1_0")
def test_torn_sheets(as_yaml_text: bytes, as_json_text: bytes, text: str) -> None:
    for name, content in (("a.yaml", as_yaml_text), ("a.json", as_json_text), ("a.jsonl", as_json_text),
                          ("a.yaml", text.encode("utf-8", "surrogatepass")), ("a.txt", as_json_text)):
        typed(lambda name=name, content=content: parse_sheet(content, name))


POLICY = policy_for("update").model_dump(mode="json")
POLICY = {**POLICY, "rules": POLICY["rules"], "approval": {
    "auto_channels": ["demo"], "approvers": ["ann", "bob"], "required": 2, "own_requests": False, "expires_days": 7,
    "channels": {"main": {"required": 1, "approvers": ["eve"]}}}}


@FUZZ
@given(mutated(POLICY))
@example({"purpose": "update", "rules": 7})
@example({"purpose": "update", "rules": ["x"]})
@example({"purpose": "update", "rules": {"0": {}}})
@example([{"rules": 1}])
def test_policies_of_odd_values(tmp_path: Path, document: Any) -> None:
    path = tmp_path / "policy.yaml"
    path.write_bytes(as_yaml(document))
    typed(lambda: load_policy(path))
    typed(lambda: read_policy(as_json(document), "the policy"))


@FUZZ
@given(torn(as_yaml(POLICY)))
@example(b"? [1, 2]\n: 3")
@example(b"? {a: 1}\n: 3")
@example(b"a: &a [*a]")
@example(b"a: 2026-99-99")
@example(b"[" * 3000)
@example(b"<<: 1")
@example(b"a: !!binary x")
@example(b"a: 1:99999999999999999999:1")
def test_torn_policies(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "policy.yaml"
    path.write_bytes(content)
    typed(lambda: load_policy(path))
    typed(lambda: read_policy(content, "the policy"))


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_records_of_odd_values(kind: type) -> None:
    @FUZZ
    @given(mutated(SAMPLES[kind]))
    def check(document: Any) -> None:
        typed(lambda: parse(kind, as_json(document), "s3://here"))

    check()


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_torn_records(kind: type) -> None:
    @FUZZ
    @given(torn(as_json(SAMPLES[kind])))
    def check(content: bytes) -> None:
        typed(lambda: parse(kind, content, "s3://here"))

    check()


@FUZZ
@given(st.text(max_size=40) | st.datetimes().map(datetime.isoformat))
@example("9999-12-31T23:59:59+00:00")
@example("0001-01-01T00:00:00+23:59")
@example("2026-01-01")
def test_times_of_decisions(at: str) -> None:
    made = Decision.model_validate({**SAMPLES[Decision], "at": at})
    record = DecisionRecord(uri="s3://here", digest="a" * 64, decision=made)

    def read() -> None:
        moments = [moment_of(record), end_of(made, ChannelRule(expires_days=3650))]
        assert sorted([*moments, datetime.now(UTC)])

    typed(read)


def small_patch(folder: Path) -> tuple[bytes, bytes]:
    patch = Patch((LowRank("w", torch.ones(4, 1), torch.ones(1, 4)), Scale("w", torch.tensor([1]), torch.tensor([0.5]), 0)),
                  {"method": "rome", "pre_image": {}}, {"keys.w": torch.ones(2, 4)})
    patch.save(folder)
    return (folder / "patch.json").read_bytes(), (folder / "patch.safetensors").read_bytes()


def used(folder: Path) -> None:
    patch = load_patch(folder)
    assert isinstance(patch, Patch)


@FUZZ
@given(st.data())
def test_patches(tmp_path: Path, data: st.DataObject) -> None:
    """Either file torn, or holding odd values."""
    folder = tmp_path / "patch"
    document, tensors = small_patch(folder)
    odd = mutated(json.loads(document)).map(as_json)
    (folder / "patch.json").write_bytes(data.draw(st.just(document) | odd | torn(document)))
    (folder / "patch.safetensors").write_bytes(data.draw(st.just(tensors) | torn(tensors) | odd_tensors()))
    typed(lambda: used(folder))


def odd_tensors() -> st.SearchStrategy[bytes]:
    """Safetensors files whose header is odd: lengths, offsets, types, duplicates."""
    offsets = st.lists(st.integers(-2, 2**63), min_size=2, max_size=2)
    entry = st.fixed_dictionaries({"dtype": st.sampled_from(["F32", "BF16", "I64", "X", "F8_E4M3", ""]),
                                   "shape": st.lists(st.integers(-1, 2**40), max_size=3), "data_offsets": offsets})
    names = st.sampled_from(["0.left", "0.right", "1.neurons", "__metadata__", ""])
    header = st.dictionaries(names, entry | VALUES, max_size=4)
    length = st.none() | st.integers(0, 2**64 - 1)

    def build(parts: tuple[Any, Any, bytes]) -> bytes:
        head = json.dumps(parts[0]).encode("utf-8", "surrogatepass")
        return struct.pack("<Q", len(head) if parts[1] is None else parts[1]) + head + parts[2]

    return st.tuples(header, length, st.binary(max_size=64)).map(build)
