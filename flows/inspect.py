"""Looking without changing: what an edit would do, where it would edit, how a version measures."""

from __future__ import annotations

from typing import Any

from editors.contract import updates_of
from editors.errors import ConfigError
from editors.loading import Checkpoint
from editors.locators import AUTO, LOCATORS, locator_of
from flows.answers import find_version
from flows.house import open_house
from flows.progress import current
from flows.settings import Settings
from tasks import channel as channels
from tasks.estimate import estimate as estimate_order
from tasks.house import House
from tasks.intake import fetch_stack, intake, materialise
from tasks.judge import judge
from tasks.locate import locate as locate_order
from tasks.manifest import Contents
from tasks.measure import measure_folder, read_measurements
from tasks.method import ChosenMethod, method_of
from tasks.records import Order


def dry_run(settings: Settings, sheet: str) -> dict[str, Any]:
    """The order a sheet places, and what carrying it out costs; no model is loaded, and what does not fit is refused."""
    with open_house(settings) as house:
        current().stage("intake")
        order = intake(sheet, house)
        method = method_of(order, house)
        estimate = estimate_order(order, house)
    chat = sum(request.is_chat for request in order.batch.updates)
    chat += sum(request.form == "chat" for request in order.batch.detoxifies)
    plan = {
        "sheet": sheet, "model": f"{order.model}, channel {order.channel}", "base": f"{order.base} ({order.base_digest[:12]})",
        "parent": order.parent_version or "the unedited base",
        "earlier requests": f"{len(updates_of(order.history))}, all measured again",
        "requests": f"{len(order.batch.requests)} ({chat} in chat form)",
        "method": f"{method.name} at {_places(order, method)}",
        "options": ", ".join(f"{name}={value}" for name, value in method.options.items()) or "the method's defaults",
        "options from": method.source, "store": house.store.location.url}
    warnings = [] if method.is_measured else ["layers and options were not measured on this model: look at the verdict"]
    return {"plan": plan, "estimate": estimate.model_dump(), "warnings": warnings, "next": [f"suture edit {sheet}"]}


def _places(order: Order, method: ChosenMethod) -> str:
    """Where an order would edit, in words."""
    if order.seeks_layers:
        return "the layers that trial edits of known facts do best at, sought first (once for a model and method)"
    return f"layers {', '.join(map(str, order.layers or method.layers))}"


def locate(settings: Settings, sheet: str, locator: str = AUTO) -> dict[str, Any]:
    """Where the parent holds what the sheet is about, as the locator sees it, with the evidence's places."""
    with open_house(settings) as house:
        current().stage("intake")
        order = intake(sheet, house).model_copy(update={"trace": True})
        current().stage("locate")
        found = locate_order(order, house, locator)
    location, chosen = found.location, locator_of(locator, order.batch)
    evidence = [{"title": item.title, "kind": item.kind, "path": str(found.folder / item.path)} for item in location.evidence]
    return {"locator": chosen, "question": LOCATORS[chosen].question, "caveat": LOCATORS[chosen].caveat,
            "layers": list(location.layers), "source": location.source, "traced_peak": location.traced_peak,
            "neurons": [neurons.model_dump(mode="json") for neurons in location.neurons],
            "positions": dict(location.positions), "folder": str(found.folder), "evidence": evidence,
            "next": [f"suture edit {sheet}"]}


def measure(settings: Settings, sheet: str, version: str | None) -> dict[str, Any]:
    """A version, or the channel's release, measured on a sheet's requests against the unedited base."""
    with open_house(settings) as house:
        current().stage("intake")
        order = intake(sheet, house)
        contents = _contents(order, version, house)
        patches = fetch_stack(contents, house)
        candidate = materialise(Checkpoint(order.base_folder), patches, house, contents.checkpoint)
        batch = order.batch.model_copy(update={"parent_digest": order.base_digest})
        bare = order.model_copy(update={"batch": batch, "parent_folder": order.base_folder, "history": (),
                                        "parent_digest": order.base_digest})
        current().stage("measure")
        measured = measure_folder(bare, candidate.folder, patches, house)
        current().stage("judge")
        verdict = judge(bare, candidate.digest, measured, house).verdict
        found = read_measurements(measured)
    return {"candidate": contents.version, "parent": f"the unedited base {order.base}", "passed": verdict.passed,
            "verdict": verdict.model_dump(mode="json"), "digest": measured.digest,
            "transcripts": [row.model_dump(mode="json") for row in found.transcripts],
            "measurements": [row.model_dump(mode="json") for row in found.rows]}


def _contents(order: Order, version: str | None, house: House) -> Contents:
    """The version to measure: the named one, or where the sheet's channel stands."""
    if version is not None:
        contents = channels.read_version(house.store, *find_version(house.store, version))
        if contents.base.digest != order.base_digest:
            raise ConfigError(f"version {contents.version} is of the base {contents.base.digest[:12]}, the sheet of "
                              f"{order.base_digest[:12]}", "name the sheet's base as the version's")
        return contents
    state = channels.read(house.store, order.model, order.channel)
    if state is None:
        raise ConfigError(f"channel {order.channel} of {order.model} has no release yet", "add --version, or edit first")
    return state.manifest
