"""What commands answer: plain documents, built from the store, so that any machine gives the same answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from editors.contract import EditBatch, EditRequest, UpdateRequest
from editors.debias_request import DebiasRequest
from editors.detoxify_request import REFUSAL, DetoxifyRequest
from editors.errors import ConfigError, NotFound
from tasks import channel as channels
from tasks import decisions
from tasks.manifest import VERSION_LENGTH, Candidate, Contents, ReleaseManifest, base_version, release_key
from tasks.removal_record import read_record
from tasks.store import blob_key

if TYPE_CHECKING:
    from tasks.house import House
    from tasks.store import Store


def find_version(store: Store, name: str) -> tuple[str, str]:
    """Model and full version for a version's name or its unique beginning.

    Raises:
        NotFound: no version begins so.
        ConfigError: several do.
    """
    found = set()
    for stored in store.list("models/"):
        parts = stored.key.split("/")
        is_version = len(parts) == 4 and parts[2] in ("candidates", "releases") and parts[3].endswith(".json")
        if is_version and parts[3].startswith(name[:VERSION_LENGTH]):
            found.add((parts[1], parts[3].removesuffix(".json")))
    if not found:
        raise NotFound(f"no version {name!r} in {store.location.url}", "see the versions: suture history CHANNEL")
    if len(found) > 1:
        names = ", ".join(f"{version} of {model}" for model, version in sorted(found))
        raise ConfigError(f"{name!r} is the beginning of several versions: {names}", "give more characters")
    return found.pop()


def channels_of(store: Store) -> list[tuple[str, str]]:
    """Model and name of every channel, in order."""
    return sorted((parts[1], parts[3].removesuffix(".json")) for stored in store.list("models/")
                  if len(parts := stored.key.split("/")) == 4 and parts[2] == "channels")


def find_channel(store: Store, channel: str, model: str | None) -> str:
    """The model that has this channel.

    Raises:
        NotFound: no model has it.
        ConfigError: several have it and none is named.
    """
    found = [name for name, one in channels_of(store) if one == channel]
    if model is not None:
        found = [name for name in found if name == model]
    if not found:
        raise NotFound(f"no channel {channel!r}{f' of {model}' if model else ''} in {store.location.url}",
                       "promote a version first: suture edit SHEET, then suture promote VERSION")
    if len(found) > 1:
        raise ConfigError(f"several models have a channel {channel!r}: {', '.join(found)}", f"--model {found[0]}")
    return found[0]


def version_answer(house: House, model: str, version: str) -> dict[str, Any]:
    """Everything about one version, from its records in the store."""
    contents = channels.read_version(house.store, model, version)
    candidate = channels.read_candidate(house.store, model, version) if contents.stack else None
    verdict = _document(house, contents, "the verdict", contents.verdict)
    measured = _document(house, contents, "the measurements", contents.artefacts.get("measurements.json"))
    removal = read_record(contents, house)
    requests = _requests(house, contents, removal)
    own = contents.stack[-1] if contents.stack and removal is None else None
    stands = decisions.standing(house.store, candidate) if candidate else None
    state = state_of(house.store, candidate, stands, contents)
    release = published(house.store, model, version)
    return {
        "version": version, "digest": contents.digest, "model": model, "state": state,
        "channel": candidate.channel if candidate else None,
        "base": contents.base.name, "base_digest": contents.base.digest,
        "parent": contents.parent if contents.parent != base_version(contents.base.digest) else None,
        "checkpoint": contents.checkpoint, "passed": candidate.state == "passed" if candidate else True,
        "verdict": verdict, "decision": _decision(stands) if stands else None,
        "approval": approval_answer(stands) if stands else None,
        "method": "removal" if removal else own.method if own else None, "edits": len(contents.stack),
        "removed": {name: removal[name] for name in ("version", "patch", "by", "reason")} if removal else None,
        "requests": [_told(request) for request in requests],
        "request_count": len(requests), "transcripts": measured["transcripts"] if measured else [],
        "patch_digests": list(contents.patch_digests), "release": release,
        "patch": channels.address(house.store, blob_key(own.digest)) if own else None,
    }


def _told(request: EditRequest) -> dict[str, str | None]:
    """A request in a line: what it asks and teaches, or the seal of what must not be told."""
    told: dict[str, str | None] = {"id": request.id, "question": None, "target": None, "seal": None}
    if isinstance(request, UpdateRequest):
        return told | {"question": request.question, "target": request.target_text}
    if isinstance(request, DetoxifyRequest):
        return told | {"question": "; ".join(one.prompt for one in request.unsafe) or ", ".join(request.concepts),
                       "target": request.unsafe[0].answer or REFUSAL if request.unsafe else None}
    if isinstance(request, DebiasRequest):
        return told | {"question": ", ".join(one.term for one in request.terms), "target": " = ".join(request.groups)}
    return told | {"seal": request.seal}


def _requests(house: House, contents: Contents, removal: dict[str, Any] | None) -> tuple[EditRequest, ...]:
    """What a version is judged by: its own edit's requests, or those that stay."""
    if removal is not None:
        return EditBatch.model_validate(removal["batch"]).requests
    batches = channels.read_batches(house.store, contents)
    return batches[-1].requests if batches else ()


def published(store: Store, model: str, version: str) -> dict[str, Any] | None:
    """The release's address and manifest digest; None when the version is not published."""
    try:
        _, digest = channels.read_release(store, model, version)
    except NotFound:
        return None
    return {"version": version, "url": channels.address(store, release_key(model, version)), "manifest": digest}


def state_of(store: Store, candidate: Candidate | None, stands: decisions.Standing | None, contents: Contents) -> str:
    """A version's state in a word."""
    if candidate is None or stands is None:
        return "base"
    if candidate.state == "refused":
        return "refused"
    if isinstance(contents, ReleaseManifest):
        pointed = channels.read(store, candidate.model, candidate.channel)
        return "serving" if pointed and pointed.pointer.version == candidate.version else "published"
    if stands.refusal is not None:
        return "turned down"
    return "approved" if stands.is_approved else "pending"


def approval_answer(stands: decisions.Standing) -> dict[str, Any]:
    """Who approved, who is still needed, and until when it counts."""
    return {"required": 1 if stands.is_automatic else stands.rule.required, "missing": stands.missing,
            "approved": stands.is_approved,
            "approvals": [_told_decision(record) for record in stands.approvals],
            "refusal": _told_decision(stands.refusal) if stands.refusal else None,
            "expired": [_told_decision(record) for record in stands.expired],
            "may_approve": list(stands.may_approve) if stands.missing else [], "anybody": not stands.rule.approvers,
            "own_requests": stands.rule.own_requests, "requesters": list(stands.requesters), "expires_at": stands.expires_at,
            "lacks": stands.lacks}


def approval_line(told: dict[str, Any] | None) -> str | None:
    """The same in a line."""
    if told is None or told["refusal"]:
        return None
    names = ", ".join(one["by"] for one in told["approvals"])
    until = f", until {told['expires_at']}" if told["expires_at"] else ""
    return f"complete: {names} ({len(told['approvals'])} of {told['required']}{until})" if told["approved"] else told["lacks"]


def _decision(stands: decisions.Standing) -> dict[str, str] | None:
    """What was decided first, or what ended it."""
    record = stands.refusal or next(iter(stands.approvals), None)
    return {"decision": record.decision.decision, **_told_decision(record)} if record else None


def _told_decision(record: decisions.DecisionRecord) -> dict[str, str]:
    made = record.decision
    return {"by": made.by, "reason": made.reason, "at": made.at}


def next_commands(answer: dict[str, Any]) -> list[str]:
    """What to type after looking at a version."""
    version, channel = answer["version"], answer["channel"]
    named = answer["approval"]["may_approve"] if answer["approval"] else []
    approver = named[0] if named else "NAME"
    by_state = {
        "pending": [f'suture approve {version} --by {approver} --reason "..."', f"suture promote {version}"],
        "approved": [f"suture promote {version}"],
        "refused": [f"suture show {version}", f"suture pull --version {version} ./refused    (to look at it)"],
        "serving": [f"suture pull {channel} ./model", f"suture history {channel}", f"suture rollback {channel}"],
        "published": [f"suture pull --version {version} ./model", f"suture history {channel}"],
    }
    return by_state.get(answer["state"], [])


def _document(house: House, contents: Contents, what: str, blob: Any) -> dict[str, Any] | None:
    if blob is None:
        return None
    return dict(json.loads(channels.read_document(house.store, blob, f"{what} of {contents.version}")))
