"""Verifying what a channel serves, as the nightly run does: sound, refused by a stricter policy, damaged, taken out, base."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.walk import LENIENT, Answer, Walk, request
from tests.receiver import receiving
from tests.tiny import tiny_folder

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def told() -> Iterator[list[dict[str, Any]]]:
    """What was sent to whoever is to be told."""
    with receiving() as (address, received), pytest.MonkeyPatch.context() as patched:
        patched.setenv("SUTURE_NOTIFY", address)
        yield received


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Walk:
    return Walk(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def edited(walk: Walk, told: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> list[Answer]:
    base = str(tiny_folder(tmp_path_factory.mktemp("base") / "tiny"))
    return [walk.run("edit", walk.sheet(f"sheet-{number}", base, [request(number, target)]))
            for number, target in enumerate(("light", "physics"))]


def test_a_gate_that_would_refuse_it_now_is_an_alarm_and_somebody_is_told(
    walk: Walk, edited: list[Answer], told: list[dict[str, Any]]
) -> None:
    strict = walk.home / "strict.yaml"
    rules = [{**rule, "at_most": 0} if rule["name"] == "locality.kl" else rule for rule in LENIENT["rules"]]
    strict.write_text(yaml.safe_dump({**LENIENT, "rules": rules}))
    found = walk.run("verify", "demo", "--policy", str(strict))
    assert found.code == 6
    assert found.document["failed_rules"] == ["locality.kl"]
    answer = found.document
    assert (answer["version"], answer["moves"]) == (edited[1].document["version"], 3)
    assert (answer["damaged"], answer["drifted"], answer["not_measured"]) == ([], [], 0), "else every number is as it was"
    assert answer["measured"] > 10
    assert list((walk.home / "verify").iterdir()) == [], "nothing is left of it"
    assert [one["title"] for one in told] == [
        *(f"Suture: channel demo serves {one.document['version']}" for one in edited),
        "Suture: channel demo does not serve what was approved"]


def test_a_removal_is_measured_against_what_was_served_before(walk: Walk, edited: list[Answer]) -> None:
    removed = walk.run("remove", edited[0].document["version"], "--from", "demo", "--reason", "wrong", "--policy",
                       str(removal_policy(walk)))
    assert removed.code == 0, removed.document
    found = walk.run("verify", "demo", "--policy", str(removal_policy(walk)))
    assert found.document["version"] == removed.document["version"]
    assert (found.code, found.document["not_measured"], found.document["drifted"]) == (0, 0, [])


def test_a_damaged_file_is_an_alarm_before_anything_is_measured(walk: Walk, edited: list[Answer]) -> None:
    from tasks.s3_server import embedded_s3
    from tasks.store import Store, blob_key

    shown = walk.run("history", "demo").document["entries"][-1]["to"]
    with embedded_s3(walk.home) as endpoint:
        store = Store(endpoint.location("suture"))
        manifest = json.loads(store.get_bytes(next(
            found.key for found in store.list("models/") if found.key.endswith(f"releases/{shown}.json")))[0])
        digest = manifest["files"]["config.json"]["sha256"]
        whole = store.get_bytes(blob_key(digest))[0]
        store._put(blob_key(digest), whole + b" ")
        found = walk.run("verify", "demo")
        store._put(blob_key(digest), whole)
    assert found.code == 6
    assert [one["what"] for one in found.document["damaged"]] == ["config.json"]
    assert found.document["measured"] == 0
    assert found.document["next"] == ["suture rollback demo, or restore what is damaged from a backup"]


def test_the_unedited_base_has_files_and_no_measurements(walk: Walk, edited: list[Answer]) -> None:
    base = walk.run("history", "demo").document["entries"][0]["to"]
    assert walk.run("rollback", "demo", "--to", base).code == 0
    found = walk.run("verify", "demo")
    assert (found.code, found.document["version"], found.document["measured"]) == (0, base, 0)


def removal_policy(walk: Walk) -> Path:
    path = walk.home / "removal.yaml"
    path.write_text(yaml.safe_dump({**LENIENT, "purpose": "removal", "rules": [
        rule for rule in LENIENT["rules"] if not rule["name"].startswith("history")]}))
    return path
