"""Promotion against a real S3 server: what moves, who wins, what a killed process leaves, and the way back."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from editors.errors import ApprovalMissing, ConfigError, GateRefused, IntegrityError, NotFound, PromotionConflict
from editors.loading import Checkpoint
from tasks import channel, decisions, ledger
from tasks.candidate import stage_candidate, upload
from tasks.manifest import (
    Blob,
    Candidate,
    Cause,
    ReleaseManifest,
    base_version,
    candidate_key,
    channel_key,
    parse,
    release_key,
    serialise,
)
from tasks.publish import Release, point, publish, publish_base, rollback
from tasks.s3_server import S3Endpoint
from tasks.store import Store, blob_key
from tests.tasks.release_line import (
    ADA,
    CHANNEL,
    MODEL,
    Made,
    blobs,
    judged_by,
    keys,
    kinds,
    make_edit,
    promote,
    publish_edit,
    stage,
    tamper,
)

pytestmark = pytest.mark.flow
BACK = Cause("bob", "it answers oddly")


@pytest.fixture
def store(release_store: Store) -> Store:
    return release_store


@pytest.fixture
def edit(store: Store, tmp_path: Path) -> Made:
    return make_edit(tmp_path / "edit", 1)


def test_a_channel_nobody_opened_is_none(store: Store) -> None:
    assert channel.read(store, MODEL, CHANNEL) is None


def test_the_first_promotion_opens_the_channel_at_the_unedited_base(store: Store, edit: Made) -> None:
    moved = promote(store, edit)
    base = base_version(edit.dossier.base.digest)
    state = channel.read(store, MODEL, CHANNEL)
    assert (moved.from_version, moved.to_version, moved.sequence, moved.found) == (base, state.pointer.version, 2, False)
    assert kinds(store) == [("open", base), ("promote", moved.to_version)]
    assert [entry.method for entry in state.stack] == ["rome"]
    assert state.manifest.checkpoint == edit.baked.digest
    assert channel.read_batches(store, state.manifest) == (edit.dossier.batch,)
    last = ledger.history(store, MODEL)[-1].entry
    assert (last.by, last.reason, last.verdict) == ("ada", "the CEO changed", edit.dossier.verdict.digest)
    assert last.decision == decisions.find(store, MODEL, state.manifest.digest)[0].digest


def test_publishing_moves_only_what_the_edit_touched(store: Store, edit: Made, tmp_path: Path) -> None:
    promote(store, edit)
    state = channel.read(store, MODEL, CHANNEL)
    second = make_edit(tmp_path / "second", 2, state.manifest, edit.baked.folder, layers=(0, 2))
    before = blobs(store)
    transfer = publish_edit(store, second).transfer
    shards = {name: blob for name, blob in stage(store, second).files.items() if "-layer-" in name}
    assert (transfer.blobs, transfer.moved_blobs) == (6, 2)
    assert transfer.moved_bytes == shards["model-layer-000.safetensors"].size_bytes * 2
    assert shards["model-layer-001.safetensors"] == state.manifest.files["model-layer-001.safetensors"]
    assert len({blob.sha256 for blob in shards.values()} - before) == 2


def test_the_base_is_published_once_and_repaired_from_the_folder(store: Store, edit: Made, tmp_path: Path) -> None:
    base, folder = edit.dossier.base, Checkpoint(tmp_path / "base")
    with pytest.raises(IntegrityError, match=f"is not the base tiny-base: expected digest {base.digest}"):
        publish_base(store, MODEL, base, edit.baked)
    first = publish_base(store, MODEL, base, folder)
    again = publish_base(store, MODEL, base, folder)
    assert (first.transfer.moved_blobs, again.transfer.moved_blobs) == (6, 0)
    assert (first.manifest, first.version) == (again.manifest, base_version(base.digest))
    manifest, _ = channel.read_release(store, MODEL, first.version)
    store.remove(blob_key(manifest.files["config.json"].sha256))
    assert publish_base(store, MODEL, base, folder).transfer.moved_blobs == 1


def test_promoting_again_moves_nothing(store: Store, edit: Made) -> None:
    first = promote(store, edit)
    before = {stored.key: stored.etag for stored in store.list()}
    again = promote(store, edit)
    assert again.found
    assert (again.sequence, again.at) == (first.sequence, first.at)
    assert {stored.key: stored.etag for stored in store.list()} == before


def test_of_two_promotions_at_once_one_wins_and_the_other_says_who(store: Store, edit: Made, tmp_path: Path) -> None:
    promote(store, edit)
    state = channel.read(store, MODEL, CHANNEL)
    rivals = [publish_edit(store, make_edit(tmp_path / str(seed), seed, state.manifest, edit.baked.folder))
              for seed in range(2, 6)]
    start = threading.Barrier(len(rivals))

    def race(number: int) -> str:
        start.wait()
        try:
            return point(store, rivals[number], CHANNEL, Cause(f"person-{number}", "mine first")).by
        except PromotionConflict as error:
            return str(error)

    with ThreadPoolExecutor(len(rivals)) as pool:
        answers = list(pool.map(race, range(len(rivals))))
    winners = [answer for answer in answers if answer.startswith("person-")]
    now_at = channel.read(store, MODEL, CHANNEL)
    assert len(winners) == 1
    assert now_at.pointer.version == rivals[answers.index(winners[0])].version
    for answer in set(answers) - set(winners):
        assert f"channel demo moved: {winners[0]} promoted {now_at.pointer.version} at {now_at.pointer.entry.at}" in answer
        assert "next: suture edit SHEET" in answer
    assert len(ledger.history(store, MODEL, CHANNEL)) == 3


def test_two_first_promotions_at_once_open_the_channel_once(store: Store, edit: Made, tmp_path: Path) -> None:
    rivals = [publish_edit(store, edit), publish_edit(store, make_edit(tmp_path / "other", 2))]

    def race(release: Release) -> bool:
        try:
            return bool(point(store, release, CHANNEL, ADA))
        except PromotionConflict:
            return False

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(race, rivals)) == [False, True]
    assert [kind for kind, _ in kinds(store)] == ["open", "promote"]


def test_what_the_gate_refused_is_kept_and_never_promoted(store: Store, tmp_path: Path) -> None:
    refused = make_edit(tmp_path / "refused", 1, passed=False)
    candidate = stage(store, refused)
    upload(store, candidate, refused.baked.folder)
    with pytest.raises(GateRefused, match=f"refused version {candidate.version}"):
        publish(store, candidate, refused.baked.folder)
    assert channel.read_version(store, MODEL, candidate.version) == candidate
    forged = ReleaseManifest(**candidate.model_dump(exclude={"format", "state", "policy", "channel", "supersedes", "seal"}),
                             approvals=({"by": "eve", "decision": "e" * 64},))
    tamper(store, release_key(MODEL, candidate.version), serialise(forged))
    promote(store, make_edit(tmp_path / "good", 2))
    _, digest = channel.read_release(store, MODEL, candidate.version)
    published = publish_edit(store, make_edit(tmp_path / "again", 2)).model_copy(
        update={"version": candidate.version, "manifest": digest})
    with pytest.raises(GateRefused):
        point(store, published, CHANNEL, ADA)


def test_an_unapproved_version_is_not_published(store: Store, edit: Made) -> None:
    candidate = stage(store, edit)
    with pytest.raises(ApprovalMissing, match="waits for approval"):
        publish(store, candidate, edit.baked.folder)
    assert release_key(MODEL, candidate.version) not in keys(store)


def test_a_manifest_that_nobody_approved_is_not_pointed_at(store: Store, edit: Made) -> None:
    release = publish_edit(store, edit)
    document = store.get_json(release_key(MODEL, release.version))
    document["files"]["config.json"]["sha256"] = "0" * 64
    tamper(store, release_key(MODEL, release.version), json.dumps(document).encode())
    with pytest.raises(IntegrityError, match="was changed"):
        point(store, release, CHANNEL, ADA)
    _, digest = channel.read_release(store, MODEL, release.version)
    with pytest.raises(IntegrityError, match="is not what ada approved"):
        point(store, release.model_copy(update={"manifest": digest}), CHANNEL, ADA)
    assert channel.read(store, MODEL, CHANNEL) is None


def test_another_machine_promotes_without_the_folder(store: Store, edit: Made) -> None:
    candidate = stage(store, edit)
    decisions.decide(store, MODEL, candidate.digest, "approve", ADA)
    with pytest.raises(NotFound, match="is not in the store yet"):
        publish(store, candidate, None)
    assert upload(store, candidate, edit.baked.folder).moved_blobs == 6
    assert publish(store, candidate, None).transfer.moved_blobs == 0


def test_a_baked_file_that_changed_after_the_verdict_is_not_published(store: Store, edit: Made) -> None:
    candidate = stage(store, edit)
    decisions.decide(store, MODEL, candidate.digest, "approve", ADA)
    shard = edit.baked.folder / "model-layer-001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x00")
    with pytest.raises(IntegrityError, match=r"model-layer-001.safetensors is not the file that was judged: expected sha256"):
        publish(store, candidate, edit.baked.folder)
    with pytest.raises(IntegrityError, match="the verdict is about other weights"):
        stage_candidate(store, edit.dossier, Checkpoint(edit.baked.folder))


def test_judging_again_keeps_the_first_record(store: Store, edit: Made) -> None:
    first = stage_candidate(store, edit.dossier, edit.baked)
    again = stage_candidate(store, judged_by(edit, edit.dossier.verdict.policy_digest, passed=False).dossier, edit.baked)
    assert (first.found, again.found) == (False, True)
    assert again.candidate == first.candidate


def test_another_policy_judges_anew_until_somebody_decided(store: Store, tmp_path: Path) -> None:
    refused = make_edit(tmp_path / "edit", 1, passed=False)
    former = stage(store, refused)
    renewed = stage(store, judged_by(refused, "8" * 64, passed=True))
    kept = channel.read_document(store, Blob(sha256=renewed.supersedes, size_bytes=0), "the former record")
    assert (former.state, renewed.state, renewed.version) == ("refused", "passed", former.version)
    assert parse(Candidate, kept, "here") == former
    assert channel.read_candidate(store, MODEL, former.version) == renewed
    decisions.decide(store, MODEL, renewed.digest, "approve", ADA)
    with pytest.raises(ConfigError, match="decided about by ada; policy 777777777777 comes too late"):
        stage(store, judged_by(refused, "7" * 64, passed=True))


def test_a_channel_on_another_base_is_left_alone(store: Store, edit: Made, tmp_path: Path) -> None:
    promote(store, edit)
    (tmp_path / "base" / "config.json").write_text(json.dumps({"model_type": "llama", "revision": 2}))
    with pytest.raises(IntegrityError, match="channel demo stands on the base"):
        promote(store, make_edit(tmp_path / "elsewhere", 3))


def test_a_channel_is_not_opened_by_an_edit_upon_edits(store: Store, edit: Made, tmp_path: Path) -> None:
    promote(store, edit)
    state = channel.read(store, MODEL, CHANNEL)
    release = publish_edit(store, make_edit(tmp_path / "second", 2, state.manifest, edit.baked.folder))
    with pytest.raises(PromotionConflict, match=f"was made on top of {state.pointer.version}, not of the unedited base"):
        point(store, release, "other", ADA)
    assert channel.read(store, MODEL, "other") is None


def test_the_pointer_of_another_channel_is_not_taken(store: Store, edit: Made) -> None:
    promote(store, edit)
    tamper(store, channel_key(MODEL, "production"), store.get_bytes(channel_key(MODEL, CHANNEL))[0])
    with pytest.raises(IntegrityError, match="is the pointer of tiny, channel demo"):
        channel.read(store, MODEL, "production")


def test_requests_of_the_line_are_verified(store: Store, edit: Made) -> None:
    promote(store, edit)
    manifest = channel.read(store, MODEL, CHANNEL).manifest
    tamper(store, blob_key(manifest.stack[0].batch.sha256), b"{}")
    with pytest.raises(IntegrityError, match="is damaged: expected sha256"):
        channel.read_batches(store, manifest)


def test_over_https_as_well(s3_https: S3Endpoint, bucket: str, edit: Made) -> None:
    store = Store(s3_https.location(bucket, "team/models"))
    store.ensure_bucket()
    moved = promote(store, edit)
    assert channel.read(store, MODEL, CHANNEL).pointer.version == moved.to_version
    assert rollback(store, MODEL, CHANNEL, BACK).to_version == moved.from_version
    assert candidate_key(MODEL, moved.to_version) in keys(store)
