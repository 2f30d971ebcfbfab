"""Tell Prefect what became of a version or a channel, as events: its automations and the deployments' triggers wait for them.

Like a notification, an event names versions, channels and people who decided, never a request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.notify import Event

NAMES: dict[Event, str] = {
    "waiting": "suture.candidate.waiting", "refused": "suture.candidate.refused", "promoted": "suture.channel.promoted",
    "rolled back": "suture.channel.rolled-back", "alarm": "suture.channel.alarm"}
"""What is told -> the event's name."""
TOLD = ("version", "model", "channel", "by")


def emit(event: Event, answer: Mapping[str, Any]) -> None:
    """Send the event about an answer; where it does not arrive, nothing stops."""
    from prefect.events import emit_event
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value() is None:
        # nobody listens, and Prefect would start a server of its own to say it to
        return
    payload = {name: answer[name] for name in TOLD if answer.get(name)}
    emit_event(NAMES[event], {"prefect.resource.id": f"suture.version.{answer.get('version')}"}, payload=payload)
