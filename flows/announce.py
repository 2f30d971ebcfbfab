"""Ring the bell for what a flow ended with, and tell Prefect."""

from __future__ import annotations

from typing import Any

from flows.events import emit
from flows.settings import read_settings
from tasks.notify import Bell, Event

BY_STATE: dict[str, Event] = {"pending": "waiting", "refused": "refused", "serving": "promoted"}
"""State of a new version -> what to tell."""


def announce(event: Event, answer: dict[str, Any], by: str | None = None) -> dict[str, Any]:
    """Tell what an answer is about, and give it back."""
    told = {**answer, "by": by}
    emit(event, told)
    Bell(read_settings().notify).ring(event, told)
    return answer


def announce_version(answer: dict[str, Any]) -> dict[str, Any]:
    """Tell what became of a new version, and give its answer back."""
    event = BY_STATE.get(answer["state"])
    return announce(event, answer, (answer["decision"] or {}).get("by")) if event else answer
