"""The edit flow: from a sheet to a judged, registered version, and on to the channel where its policy approves by itself."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.announce import announce_version
from flows.answers import next_commands, version_answer
from flows.house import open_house
from flows.settings import read_settings
from flows.stages import (
    approve_by_policy,
    find_place,
    heal,
    look_over,
    make_patch,
    pass_judgement,
    point_channel,
    publish_version,
    take_in,
    take_measure,
    write_down,
)
from tasks.house import House
from tasks.intake import served_version
from tasks.machine import watched
from tasks.records import Located, Order, Registered
from tasks.register import find_version


@flow(name="edit", persist_result=False)
def edit(sheet: str) -> dict[str, Any]:
    """Carry out a sheet.

    Args:
        sheet: Its address, a path or `s3://bucket/key`; never its content, which Prefect would store.

    Returns:
        The version with its verdict, transcripts and places; `passed` says what the gate decided.

    Raises:
        SheetError: the sheet is wrong, or a request is not sane.
        SutureError: whatever else a user can cause, each typed.
    """
    with open_house(read_settings()) as house, watched(house, "edit"):
        order = take_in(sheet, house)
        served = served_version(order, house)
        if served is not None:
            return _served(order, served, house)
        order = look_over(order, house)
        located = find_place(order, house)
        edited = make_patch(order, located, house)
        measured = take_measure(order, edited, house)
        judged = pass_judgement(order, edited.candidate_digest, measured, house)
        registered = write_down(order, located, edited, measured, judged, house)
        if judged.verdict.passed and approve_by_policy(order, registered, house):
            release = publish_version(order.model, registered.version, house)
            point_channel(release, order.channel, order.requester, f"sheet {order.sheet}", house)
        return announce_version(_answer(order, located, registered, house))


def _answer(order: Order, located: Located, registered: Registered, house: House) -> dict[str, Any]:
    answer = version_answer(house, order.model, registered.version)
    picture = next((located.folder / item.path for item in located.location.evidence if item.kind == "picture"), None)
    return {**answer, "sheet": order.sheet, "layers": list(located.location.layers), "warnings": list(order.warnings),
            "page": str(registered.page), "certificate": str(registered.certificate) if registered.certificate else None,
            "picture": str(picture) if picture else None, "mlflow": registered.uri,
            "next": next_commands(answer)}


def _served(order: Order, version: str, house: House) -> dict[str, Any]:
    """The answer where the channel's line holds this sheet's edit already; what a kill left undone behind it is done."""
    heal(order.model, order.channel, house)
    answer = version_answer(house, order.model, version)
    found = find_version(house.mlflow_uri, answer["digest"])
    note = f"channel {order.channel} holds this sheet's edit already, as version {version}; nothing was edited"
    return {**answer, "sheet": order.sheet, "layers": [], "warnings": [note], "page": None, "certificate": None,
            "picture": None, "mlflow": found.uri if found else None, "next": next_commands(answer)}
