"""What verifying finds: every damaged byte by name, and every number that moved."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tasks.channel import read
from tasks.house import House
from tasks.privacy_key import PrivacyKey
from tasks.store import Store, blob_key
from tasks.verify import Damage, Slack, drifts, fetch
from tests.tasks.release_line import CHANNEL, MODEL, line_of, tamper
from validations.contract import Measurement, Measurements


def measured(**values: float) -> Measurements:
    rows = tuple(Measurement(request=name, probe="efficacy", metric="efficacy.prob_success", prompt="p", parent=0.0,
                             candidate=value) for name, value in values.items())
    return Measurements(parent_digest="a", candidate_digest="b", batch_digest="c", rows=rows, transcripts=())


@pytest.mark.flow
def test_every_damage_of_a_release_is_named_at_once(release_store: Store, tmp_path: Path) -> None:
    line_of(release_store, tmp_path, 2)
    served = read(release_store, MODEL, CHANNEL).manifest
    house = House(root=tmp_path, store=release_store, mlflow_uri="", user="tester",
                  privacy_key=PrivacyKey(None, tmp_path / "key", may_create=False))
    assert fetch(served, tmp_path / "sound", house) == ()
    shard, config = served.files["model-layer-001.safetensors"], served.files["config.json"]
    body = bytearray(release_store.get_bytes(blob_key(shard.sha256))[0])
    body[-1] ^= 1
    tamper(release_store, blob_key(shard.sha256), bytes(body))
    release_store.remove(blob_key(config.sha256))
    tamper(release_store, blob_key(served.stack[0].batch.sha256), b"{}")
    found = fetch(served, tmp_path / "damaged", house)
    assert [one.what for one in found] == ["config.json", "model-layer-001.safetensors",
                                           f"batch {served.stack[0].digest[:12]}"]
    assert "HTTP 404" in found[0].problem
    assert f"expected sha256 {shard.sha256}, found" in found[1].problem


@pytest.mark.flow
def test_a_manifest_that_names_other_weights_than_its_checkpoint_is_found(release_store: Store, tmp_path: Path) -> None:
    line_of(release_store, tmp_path, 1)
    served = read(release_store, MODEL, CHANNEL).manifest
    files = {**served.files, "model-layer-001.safetensors": served.files["model-layer-000.safetensors"]}
    house = House(root=tmp_path, store=release_store, mlflow_uri="", user="tester",
                  privacy_key=PrivacyKey(None, tmp_path / "key", may_create=False))
    found = fetch(served.model_copy(update={"files": files}), tmp_path / "other", house)
    assert found[0].what == "the checkpoint"
    assert isinstance(found[0], Damage)


def test_a_number_that_moved_is_told_and_rounding_is_not() -> None:
    moved, missing = drifts(measured(a=0.9, b=0.9, c=0.5), measured(a=0.905, b=0.7))
    assert [(one.request, one.recorded, one.found) for one in moved] == [("b", 0.9, 0.7)]
    assert missing == 1


@pytest.mark.parametrize(("recorded", "found", "answer"), [
    (1.0, 1.019, True), (1.0, 1.03, False), (100.0, 101.0, True), (100.0, 101.1, False), (0.0, 0.01, True), (0.0, 0.02, False),
    (math.nan, math.nan, True), (math.inf, math.inf, True), (1.0, math.nan, False), (math.nan, 1.0, False),
    (math.inf, 1e30, False)])
def test_slack_is_a_hundredth_and_never_covers_what_is_not_finite(recorded: float, found: float, answer: bool) -> None:
    assert Slack().holds(recorded, found) == answer
