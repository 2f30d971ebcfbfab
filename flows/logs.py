"""Log lines: plain for people, or one JSON document a line for machines, with the run, the stage and the requests it is about.

Requests appear by their ids alone. Prefect's own lines take the same form, for they end at the same handlers.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

from tasks.records import Order

SHOWN_REQUESTS = 20
"""Ids in a line; of more, `request_count` tells."""
_about: ContextVar[dict[str, Any]] = ContextVar("about")


class JsonLines(logging.Formatter):
    """One JSON document a record."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": at, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage(),
                **_run_ids(), **_about.get({})}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def begin_logs(log_format: Literal["text", "json"]) -> None:
    """Give this process' log lines their form. Called again, it changes nothing."""
    logging.getLogger("suture").setLevel(logging.INFO)
    if log_format == "text":
        return
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.StreamHandler(sys.stderr))
    for handler in root.handlers:
        handler.setFormatter(JsonLines())


@contextmanager
def about_stage(title: str, args: Sequence[object]) -> Iterator[None]:
    """Say in every line inside the block which stage it is from, and which requests that is about."""
    about: dict[str, Any] = {"stage": title}
    for order in (given for given in args if isinstance(given, Order)):
        ids = [request.id for request in order.batch.requests]
        about |= {"model": order.model, "channel": order.channel, "batch": order.batch.digest[:12],
                  "requests": ids[:SHOWN_REQUESTS], "request_count": len(ids)}
    token = _about.set(about)
    try:
        yield
    finally:
        _about.reset(token)


def _run_ids() -> dict[str, str]:
    """Prefect's names of what runs now; importing it for a log line would take seconds."""
    context = sys.modules.get("prefect.context")
    found: dict[str, str] = {}
    if context is None:
        return found
    if (flow := context.FlowRunContext.get()) is not None and flow.flow_run is not None:
        found |= {"flow": flow.flow.name, "flow_run": str(flow.flow_run.id)}
    if (task := context.TaskRunContext.get()) is not None:
        found["task_run"] = str(task.task_run.id)
    return found
