"""Commands about versions and channels that need no flow: approve, pull, history, show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.answers import approval_answer, approval_line, find_channel, find_version, next_commands, version_answer
from flows.house import open_house
from flows.settings import Settings
from tasks import channel as channels
from tasks import decisions, ledger
from tasks.house import House, store_at
from tasks.manifest import Cause
from tasks.pull import Pulled
from tasks.pull import pull as fetch


def approve(settings: Settings, version: str, by: str, reason: str, *, refuse: bool) -> dict[str, Any]:
    """Write the decision on a version, and mirror it in the registry once there are enough."""
    from tasks.register import mark_approval

    with open_house(settings) as house:
        model, full = find_version(house.store, version)
        candidate = channels.read_candidate(house.store, model, full)
        made = decisions.decide(house.store, model, candidate.digest, "refuse" if refuse else "approve", Cause(by, reason))
        stands = decisions.standing(house.store, candidate)
        if stands.refusal is not None or stands.is_approved:
            mark_approval(house.mlflow_uri, model, candidate.digest, made.decision.decision, by)
        told = approval_answer(stands)
    next_ones = [] if stands.refusal else [f"suture promote {full}"] if stands.is_approved else [
        f'suture approve {full} --by {stands.next_approver} --reason "..."']
    return {"version": full, "decision": "refused" if refuse else "approved", "by": by, "reason": reason,
            "digest": candidate.digest, "uri": made.uri, "approval": told, "next": next_ones}


def pull(settings: Settings, folder: Path, url: str | None, channel: str | None, version: str | None, base: str | None,
         model: str | None) -> dict[str, Any]:
    """Bring a channel's release, a version or an unedited base into a folder."""
    with open_house(settings) as house:
        store = store_at(url, house) if url else house.store
        if base is not None:
            return _pull_base(base, folder, house)
        if version is not None:
            name, full = find_version(store, version)
            contents: Any = channels.read_version(store, name, full)
        else:
            name = find_channel(store, channel or "", model)
            state = channels.read(store, name, channel or "")
            contents = state.manifest if state else None
        return _pulled(fetch(store, contents, folder, progress=house.progress))


def history(settings: Settings, channel: str, model: str | None) -> dict[str, Any]:
    """The ledger of a channel, oldest first."""
    with open_house(settings) as house:
        name = find_channel(house.store, channel, model)
        records = ledger.history(house.store, name, channel)
    entries = [{"sequence": record.sequence, "when": record.entry.at, "action": record.entry.kind,
                "from": record.entry.from_version, "to": record.entry.to_version, "by": record.entry.by,
                "reason": record.entry.reason, "verdict": (record.entry.verdict or "")[:12] or None} for record in records]
    return {"model": name, "channel": channel, "entries": entries}


def show(settings: Settings, version: str) -> dict[str, Any]:
    """Everything about one version."""
    with open_house(settings) as house:
        answer = version_answer(house, *find_version(house.store, version))
    decision = answer["decision"]
    places = {"model": answer["model"], "channel": answer["channel"], "base": answer["base"], "parent": answer["parent"],
              "method": answer["method"], "digest": answer["digest"], "checkpoint": answer["checkpoint"],
              "decision": f"{decision['decision']} by {decision['by']} at {decision['at']}: {decision['reason']}"
              if decision else None, "approval": approval_line(answer["approval"]),
              "release": answer["release"]["url"] if answer["release"] else None}
    return {**answer, "places": places, "next": next_commands(answer)}


def _pull_base(reference: str, folder: Path, house: House) -> dict[str, Any]:
    from editors.bake import bake
    from editors.errors import ConfigError
    from tasks.intake import find_base

    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: a pull never overwrites", f"give a new folder: {folder}-2")
    found = bake(find_base(reference, house), (), folder)
    files = (*found.shards, *found.carried_files)
    return {"version": f"base {reference}", "digest": found.digest, "folder": str(folder), "files": len(files),
            "bytes": sum((folder / name).stat().st_size for name in files)}


def _pulled(found: Pulled) -> dict[str, Any]:
    return {"version": found.version, "model": found.model, "digest": found.digest, "checkpoint": found.checkpoint,
            "folder": str(found.folder), "files": len(found.files), "bytes": found.size_bytes}
