"""Listen to the registry: its webhooks knock, and whatever promotion is asked for there is answered by the store's approvals.

A delivery is a hint to look and carries no order, so one that is lost, late or sent twice does no harm; without any, the
listener looks every so often. The work is done by the main thread, one promotion at a time.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from editors.errors import ConfigError, NotFound, ServiceError, StoreError, SutureError
from flows.metrics import CONTENT_TYPE, metrics_text
from flows.settings import Settings
from tasks.asked import ASKED, Asked, answer_asked, asked_promotions
from tasks.webhook import DeliveryRefused, check_delivery

if TYPE_CHECKING:
    from fastapi import FastAPI

logger = logging.getLogger("suture")
LARGEST_BODY = 1 << 16


@dataclass
class Board:
    """What the listener's answers are read from."""

    metrics: str = ""
    """As of the last look."""


def listen(settings: Settings, host: str, port: int, every_seconds: float) -> None:
    """Answer until stopped.

    Raises:
        ConfigError: no secret is set, so nobody could be believed.
        ServiceError: the port is taken.
    """
    if settings.webhook_secret is None:
        raise ConfigError("SUTURE_WEBHOOK_SECRET is not set: nobody's delivery could be believed",
                          "export SUTURE_WEBHOOK_SECRET=$(openssl rand -hex 32), and give MLflow's webhook the same")
    knocked, board = threading.Event(), Board()
    knocked.set()
    with _answering(listener(settings.webhook_secret, knocked.set, board), host, port):
        while True:
            knocked.wait(every_seconds)
            knocked.clear()
            work_off(settings)
            board.metrics = _look(settings)


def work_off(settings: Settings) -> list[dict[str, Any]]:
    """Answer what is asked for now; the answers. A registry or a store that fails is asked again at the next look."""
    from flows.services import Services

    tracking_uri = Services(settings).mlflow_uri
    try:
        return [_carry_out(settings, tracking_uri, one) for one in asked_promotions(tracking_uri)]
    except (ServiceError, StoreError) as error:
        logger.warning("%s", error.message)
        return []


def _look(settings: Settings) -> str:
    """Where the line stands; nothing while the store cannot be reached, which Prometheus sees as absent numbers."""
    from flows.house import open_house

    try:
        with open_house(settings) as house:
            return metrics_text(house.store)
    except (StoreError, ServiceError) as error:
        logger.warning("%s", error.message)
        return ""


def listener(secret: SecretStr, knock: Callable[[], None], board: Board) -> FastAPI:
    """The HTTP side: `POST /mlflow` for the registry's webhooks, `GET /metrics` for Prometheus, `GET /health`."""
    from fastapi import FastAPI, Request, Response

    app = FastAPI(title="suture listen", docs_url=None, redoc_url=None, openapi_url=None)

    async def receive(request: Request) -> Response:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_BODY:
                return Response(status_code=413)
        try:
            check_delivery(secret, request.headers, bytes(body), time.time())
        except DeliveryRefused as error:
            logger.warning("%s", error.message)
            return Response(error.message, status_code=401)
        if _asks(bytes(body)):
            knock()
        return Response(status_code=202)

    async def show(_: Request) -> Response:
        return Response(board.metrics, media_type=CONTENT_TYPE)

    # by hand: with postponed annotations FastAPI cannot see types that only this function imports
    app.add_route("/mlflow", receive, methods=["POST"])
    app.add_route("/metrics", show, methods=["GET"])
    app.add_route("/health", _healthy, methods=["GET"])
    return app


async def _healthy(_: Any) -> Any:
    from fastapi import Response

    return Response('{"status": "ok"}', media_type="application/json")


def _asks(body: bytes) -> bool:
    """Whether a delivery tells that the alias was set that asks for a promotion."""
    try:
        event = json.loads(body)
        return (event["entity"], event["action"], event["data"]["alias"]) == ("model_version_alias", "created", ASKED)
    except (ValueError, KeyError, TypeError):
        return False


def _carry_out(settings: Settings, tracking_uri: str, asked: Asked) -> dict[str, Any]:
    from flows import run

    try:
        answer = run.promote(settings, asked.version, settings.user, f"the alias {ASKED} was set on {asked.name} "
                             f"version {asked.number}", quiet=True)
        said = f"promoted to {answer['channel']}"
    except SutureError as error:
        if not _answers(error):
            raise
        answer, said = {"version": asked.version, "error": type(error).__name__}, f"{error.message}; {error.hint}"
        logger.warning("version %s is not promoted: %s", asked.version, error.message)
    answer_asked(tracking_uri, asked, said)
    return answer


def _answers(error: SutureError) -> bool:
    """Whether it says no. Where a server or the store failed nothing was decided, and it stays asked for."""
    return isinstance(error, NotFound) or not isinstance(error, ServiceError | StoreError)


@contextmanager
def _answering(app: FastAPI, host: str, port: int) -> Iterator[None]:
    """The server in a thread of its own, up inside the block."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise ServiceError(f"nothing can listen at {host}:{port}", "give another --port, or --host")
            time.sleep(0.05)
        logger.info("listening at http://%s:%d/mlflow", host, port)
        yield
    finally:
        server.should_exit = True
        thread.join(10)
