"""Answer what people ask for by tags in MLflow: each becomes a decision, or is told why not."""

from __future__ import annotations

from typing import Any

from editors.errors import ApprovalMissing, GateRefused, NotFound, PromotionConflict
from flows import release
from flows.house import open_house
from flows.settings import Settings
from tasks import registry_asks
from tasks.manifest import version_of
from tasks.registry_asks import Ask

TAG = "by a tag in MLflow, whose author nothing proves"
NO = (ApprovalMissing, GateRefused, NotFound, PromotionConflict)
"""What ends an ask. Anything else, such as a store that is away, leaves the tag for the next time."""


def answer_asks(settings: Settings) -> dict[str, Any]:
    """Answer them all; what the policy does not allow is answered too, and stops nothing.

    Raises:
        ServiceError: MLflow cannot be reached.
        StoreError: the store cannot; the tags that were not answered stay.
    """
    with open_house(settings) as house:
        place = house.mlflow_uri
        told: dict[str, list[dict[str, Any]]] = {"decided": [], "denied": []}
        for ask in registry_asks.asked(place):
            kind, words = _answered(settings, ask)
            registry_asks.answer(place, ask, words)
            told[kind].append({"version": version_of(ask.digest), "decision": ask.decision, "by": ask.by, "answer": words})
    return {**told, "next": [f"suture show {version}" for version in
                             sorted({one["version"] for one in [*told["decided"], *told["denied"]]})]}


def _answered(settings: Settings, ask: Ask) -> tuple[str, str]:
    reason = f"{ask.comment} ({TAG})" if ask.comment else TAG
    try:
        answer = release.approve(settings, version_of(ask.digest), ask.by, reason, refuse=ask.decision == "refuse")
    except NO as error:
        return "denied", f"{ask.by} could not {ask.decision} it: {error.message}"
    lacks = answer["approval"]["lacks"]
    return "decided", f"{answer['decision']} by {ask.by}" + (f"; {lacks}" if lacks else "")
