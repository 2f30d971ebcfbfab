"""Serve: the deployments of every flow from one process, for a machine that needs no work pools."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from flows.events import NAMES
from flows.services import services
from flows.settings import Settings

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

logger = logging.getLogger("suture")
NAME = "served"
LOGGED = {"PREFECT_LOGGING_LEVEL": "INFO", "PREFECT_LOGGING_TO_API_ENABLED": "true",
          "PREFECT_LOGGING_EXTRA_LOGGERS": "suture", "PREFECT_RUNNER_POLL_FREQUENCY": "3"}
"""Nobody watches a served run: what Prefect says of it is kept with it. Who answered a form does not wait long."""
ASKED_EVERY = timedelta(minutes=5)
"""How often MLflow's tags are looked at."""


def serve(settings: Settings, inbox: str | None, every_seconds: float, channels: list[str]) -> None:
    """Serve every flow until stopped, one run at a time; the inbox every so often, each channel's verification every night."""
    with _standing(settings) as url:
        from prefect import serve as keep_serving

        logger.info("serving; to start a run: PREFECT_API_URL=%s prefect deployment run edit/%s --param sheet=SHEET", url, NAME)
        keep_serving(*deployments(inbox, every_seconds, channels), limit=1, print_starting_message=False)


def deployments(inbox: str | None, every_seconds: float, channels: list[str]) -> list[RunnerDeployment]:
    """A deployment of each flow, named `served`, with the schedules that were asked for."""
    from prefect.deployments.runner import EntrypointType
    from prefect.schedules import Cron, Interval

    from flows.approvals import approvals
    from flows.approve import approve
    from flows.calibrate import calibrate
    from flows.edit import edit
    from flows.inbox import inbox as inbox_flow
    from flows.promote import promote
    from flows.remove import remove
    from flows.rollback import rollback
    from flows.verify import verify
    from flows.warm import warm

    looks: list[Any] = [Interval(timedelta(seconds=every_seconds), parameters={"place": inbox})] if inbox else []
    nights: list[Any] = [Cron("0 4 * * *", timezone="UTC", parameters={"channel": channel}) for channel in channels]
    scheduled: dict[Any, list[Any]] = {inbox_flow: looks, verify: nights, approvals: [Interval(ASKED_EVERY)]}
    started: dict[Any, list[Any]] = {approve: [waiting()]}
    # by module: a run finds the installed flow whatever folder this was started in
    made: list[Any] = [flow.to_deployment(NAME, schedules=scheduled.get(flow), triggers=started.get(flow),
                                           entrypoint_type=EntrypointType.MODULE_PATH)
                       for flow in (edit, inbox_flow, approve, approvals, promote, rollback, remove, warm, calibrate, verify)]
    return made


def waiting() -> Any:
    """What starts the flow `approve`: a candidate that waits."""
    from prefect.events import DeploymentEventTrigger

    return DeploymentEventTrigger(
        name="approve a candidate that waits", match={"prefect.resource.id": "suture.version.*"}, expect={NAMES["waiting"]},
        parameters={"version": "{{ event.payload.version }}"})


@contextmanager
def _standing(settings: Settings) -> Iterator[str]:
    """This process and its runs pointed at a Prefect server that schedules: the team's, or one of this home."""
    from tasks.prefect_server import api_url_of, begin_standing_prefect

    for name, value in LOGGED.items():
        os.environ.setdefault(name, value)
    with services(settings, prefect=False):
        handle = begin_standing_prefect(settings.root) if settings.prefect_api_url is None else None
        try:
            url = api_url_of(handle.wait_ready()) if handle else str(settings.prefect_api_url)
            os.environ["PREFECT_API_URL"] = url
            os.environ.setdefault("PREFECT_HOME", str(settings.root / "prefect"))
            yield url
        finally:
            if handle:
                handle.close()
