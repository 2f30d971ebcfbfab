"""A judged candidate into the store and into the registry, with its page and all its evidence; state `passed` or `refused`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from editors.loading import Checkpoint
from editors.patch import load_patch
from tasks import channel as channels
from tasks.candidate import Brought, Dossier, stage_candidate, upload
from tasks.house import House
from tasks.manifest import BaseReference, StackEntry, candidate_digest, version_of
from tasks.measure import read_measurements
from tasks.method import method_of
from tasks.policy import policy_of
from tasks.records import Edited, Judged, Located, Measured, Order, Registered
from tasks.register import register_candidate
from tasks.run_record import Submission
from tasks.search import search
from validations.about import About, Command, Picture, Step
from validations.certificate import commands, render_certificate
from validations.page import render_page
from validations.tables import spare
from validations.weights import changed_weights

if TYPE_CHECKING:
    from validations.nearby import Search

CERTIFICATE = "certificate.html"


def enrol(order: Order, located: Located, edited: Edited, measured: Measured, judged: Judged, house: House) -> Registered:
    """Write the candidate's record, its weights and its registry version; each is found when it is there already.

    Raises:
        IntegrityError: the verdict is about other weights, another parent or other measurements.
        StoreError: the store cannot be reached, forbids, or failed.
        ServiceError: the tracking server cannot be reached, or failed.
    """
    found, nearby = search(order, edited.candidate_folder, house)
    about = about_edit(order, located, edited, judged, found, house)
    page, certificate = write_page(order, about, measured, judged), write_certificate(order, about, measured, judged)
    evidence = {Path(item.path).name: located.folder / item.path for item in located.location.evidence}
    artefacts = {"page.html": page, **({CERTIFICATE: certificate} if certificate else {}),
                 "expectations.json": judged.folder / "expectations.json", "nearby.json": nearby, **evidence}
    state = channels.read(house.store, order.model, order.channel)
    parent = state.manifest if state and order.parent_version else None
    dossier = Dossier(
        model=order.model, channel=order.channel, base=BaseReference(name=order.base, digest=order.base_digest),
        parent=parent, kept=parent.stack if parent else (),
        brought=(Brought(edited.folder, method_of(order, house).name, order.batch),), batch=order.batch,
        verdict=judged.verdict, measurements=read_measurements(measured), artefacts=artefacts, policy=policy_of(order),
        requesters=_requesters(order))
    staged = stage_candidate(house.store, dossier, Checkpoint(edited.candidate_folder))
    upload(house.store, staged.candidate, edited.candidate_folder, house.progress)
    submission = Submission(
        candidate=staged.candidate, base_folder=order.base_folder, patches=(*order.stack, edited.folder), batch=order.batch,
        location=located.location, options=method_of(order, house).options, measurements=dossier.measurements,
        verdict=judged.verdict, requester=order.requester, artefacts=artefacts)
    entered = register_candidate(house.mlflow_uri, house.mlflow_artifacts, submission)
    return Registered(version=staged.candidate.version, digest=staged.candidate.digest, state=staged.candidate.state,
                      registry_name=entered.name, registry_number=entered.number, run_id=entered.run_id, uri=entered.uri,
                      page=page, certificate=certificate)


def about_edit(order: Order, located: Located, edited: Edited, judged: Judged, found: Search, house: House) -> About:
    """What the pages tell beyond the verdict."""
    method = method_of(order, house)
    digest = candidate_digest(order.base_digest, (*order.patch_digests, edited.patch_digest), edited.candidate_digest)
    version = version_of(digest)
    parent = channels.read_version(house.store, order.model, order.parent_version) if order.parent_version else None
    patch = load_patch(edited.folder)
    own = Step(edited.patch_digest, order.batch.purpose, method.name, len(order.batch.requests), is_new=True)
    return About(
        model=order.model, version=version, channel=order.channel, method=method.name,
        provenance=_provenance(order, located, edited, method.source),
        pictures=[Picture(item.title, located.folder / item.path, item.alt) for item in located.location.evidence
                  if item.kind == "picture"],
        commands=next_steps(version, judged.verdict.passed, order.channel), warnings=order.warnings,
        stack=(*steps_of(parent.stack if parent else ()), own),
        weights=changed_weights(Checkpoint(order.parent_folder), Checkpoint(edited.candidate_folder), (patch,)),
        search=found)


def write_page(order: Order, about: About, measured: Measured, judged: Judged) -> Path:
    """The verdict page, beside the verdict."""
    path, found = _beside(judged) / "page.html", read_measurements(measured)
    told = replace(about, spare=spare(policy_of(order), found, order.batch))
    path.write_text(render_page(judged.verdict, found, order.batch, told), encoding="utf-8")
    return path


def write_certificate(order: Order, about: About, measured: Measured, judged: Judged) -> Path | None:
    """The certificate of what was withdrawn, beside the verdict page; none where nothing was."""
    if not order.batch.forgets:
        return None
    path = _beside(judged) / CERTIFICATE
    checks = replace(about, commands=[Command(why, line) for why, line in commands(about.version, about.channel).items()])
    text = render_certificate(judged.verdict, read_measurements(measured), order.batch, checks)
    path.write_text(text, encoding="utf-8")
    return path


def _requesters(order: Order) -> tuple[str, ...]:
    """Who ran the edit and whom the sheet names; not where secrets are withdrawn, for there it may be the person concerned."""
    named = () if order.batch.forgets else (request.requester for request in order.batch.requests)
    return tuple(dict.fromkeys(name for name in (order.requester, *named) if name.strip()))


def _beside(judged: Judged) -> Path:
    folder = judged.folder.parent / f"{judged.folder.name}-page"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _provenance(order: Order, located: Located, edited: Edited, source: str) -> Mapping[str, str]:
    layers = ", ".join(map(str, located.location.layers))
    return {"base": f"{order.base} ({order.base_digest})", "parent": order.parent_version or "the unedited base",
            "patch": edited.patch_digest, "layers": f"{layers}, chosen by {located.location.source}", "options from": source,
            "sheet": order.sheet_digest, "requested by": order.requester}


def steps_of(stack: Iterable[StackEntry]) -> tuple[Step, ...]:
    """The patches that were there before."""
    return tuple(Step(entry.digest, entry.purpose, entry.method, entry.request_count) for entry in stack)


def next_steps(version: str, passed: bool, channel: str) -> list[Command]:
    """What a person who read the verdict page types next."""
    if not passed:
        return [Command("Look at the refused weights", f"suture pull --version {version} ./refused")]
    return [Command("Approve it", f'suture approve {version} --by NAME --reason "..."'),
            Command("Publish it to its channel", f"suture promote {version}"),
            Command("Take the channel back, bit for bit, should it go wrong", f'suture rollback {channel} --reason "..."')]
