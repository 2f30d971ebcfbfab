"""A judged removal into the store and into the registry, with its page and its record; state `passed` or `refused`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from editors.digest import canonical_json, digest_file
from editors.errors import PromotionConflict
from editors.loading import Checkpoint
from editors.patch import load_patch
from tasks import channel as channels
from tasks.candidate import Brought, Dossier, stage_candidate, upload
from tasks.enrol import next_steps, steps_of
from tasks.house import House
from tasks.manifest import ReleaseManifest, candidate_digest, version_of
from tasks.measure import read_measurements
from tasks.policy import policy_of
from tasks.records import Judged, Measured, Registered, Remaining, Removal
from tasks.register import register_candidate
from tasks.removal_record import RECORD
from tasks.run_record import Submission
from tasks.search import search
from validations.about import About
from validations.contract import Measurements
from validations.page import render_page
from validations.tables import spare
from validations.weights import changed_weights


def enrol_removal(removal: Removal, remaining: Remaining, measured: Measured, judged: Judged, house: House) -> Registered:
    """Write the candidate's record, its weights and its registry version; each is found when it is there already.

    Raises:
        PromotionConflict: the channel has moved since the removal was ordered.
        IntegrityError: the verdict is about other weights, another parent or other measurements.
        StoreError: the store cannot be reached, forbids, or failed.
        ServiceError: the tracking server cannot be reached, or failed.
    """
    order, place = removal.order, removal.place
    parent, _ = channels.read_release(house.store, order.model, str(order.parent_version))
    if parent.patch_digests != order.patch_digests:
        raise PromotionConflict(f"version {parent.version} is not the one that the removal began with", order.sheet)
    measurements = read_measurements(measured)
    page = _write_page(removal, remaining, measurements, judged, house)
    record = page.with_name(RECORD)
    record.write_bytes(canonical_json({
        "format": "suture-removal-1", "version": removal.version, "patch": order.patch_digests[place], "by": removal.by,
        "reason": removal.reason, "batch": order.batch.model_dump(mode="json")}))
    artefacts = {"page.html": page, "expectations.json": judged.folder / "expectations.json", RECORD: record}
    dossier = Dossier(
        model=order.model, channel=order.channel, base=parent.base, parent=parent, kept=parent.stack[:place],
        brought=_readdressed(parent, removal, remaining, house), batch=order.batch, verdict=judged.verdict,
        measurements=measurements, artefacts=artefacts, policy=policy_of(order), requesters=(removal.by,))
    staged = stage_candidate(house.store, dossier, Checkpoint(remaining.edited.candidate_folder))
    upload(house.store, staged.candidate, remaining.edited.candidate_folder, house.progress)
    submission = Submission(
        candidate=staged.candidate, base_folder=order.base_folder, patches=remaining.stack, batch=order.batch, location=None,
        options={}, measurements=measurements, verdict=judged.verdict, requester=order.requester, artefacts=artefacts,
        removed=order.patch_digests[place])
    found = register_candidate(house.mlflow_uri, house.mlflow_artifacts, submission)
    return Registered(version=staged.candidate.version, digest=staged.candidate.digest, state=staged.candidate.state,
                      registry_name=found.name, registry_number=found.number, run_id=found.run_id, uri=found.uri, page=page)


def _readdressed(parent: ReleaseManifest, removal: Removal, remaining: Remaining, house: House) -> tuple[Brought, ...]:
    batches = channels.read_batches(house.store, parent)[removal.place + 1:]
    entries = parent.stack[removal.place + 1:]
    folders = remaining.stack[removal.place:]
    return tuple(Brought(folder, entry.method, batch) for folder, entry, batch in zip(folders, entries, batches, strict=True))


def _write_page(removal: Removal, remaining: Remaining, measurements: Measurements, judged: Judged, house: House) -> Path:
    """The verdict page, beside the verdict."""
    order = removal.order
    digests = [digest_file(folder / "patch.json") for folder in remaining.stack]
    version = version_of(candidate_digest(order.base_digest, digests, remaining.edited.candidate_digest))
    parent = channels.read_version(house.store, order.model, str(order.parent_version))
    before = steps_of(entry for entry in parent.stack if entry.digest != order.patch_digests[removal.place])
    about = About(
        model=order.model, version=version, channel=order.channel, method="removal",
        provenance={"base": f"{order.base} ({order.base_digest})", "parent": str(order.parent_version),
                    "taken out": f"the edit of version {removal.version}, patch {order.patch_digests[removal.place]}",
                    "requested by": removal.by, "reason": removal.reason},
        commands=next_steps(version, judged.verdict.passed, order.channel),
        stack=[replace(step, digest=digest) for step, digest in zip(before, digests, strict=True)],
        weights=changed_weights(Checkpoint(order.parent_folder), Checkpoint(remaining.edited.candidate_folder),
                                (load_patch(remaining.edited.folder),)),
        spare=spare(policy_of(order), measurements, order.batch),
        search=search(order, remaining.edited.candidate_folder, house)[0])
    path = judged.folder.parent / f"{judged.folder.name}-page" / "page.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_page(judged.verdict, measurements, order.batch, about), encoding="utf-8")
    return path
