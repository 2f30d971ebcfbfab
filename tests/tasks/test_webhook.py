"""Deliveries: golden signature, forged, replayed; and what the listener answers over HTTP."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import time

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from flows.listen import LARGEST_BODY, Board, listener
from tasks.webhook import DeliveryRefused, check_delivery

SECRET = SecretStr("whsec")
BODY = json.dumps({"entity": "model_version_alias", "action": "created",
                   "data": {"name": "tiny.demo", "alias": "promote", "version": "1"}}).encode()


def headers(body: bytes, at: float, secret: str = "whsec") -> dict[str, str]:
    signed = hmac.new(secret.encode(), b"d-1." + str(int(at)).encode() + b"." + body, hashlib.sha256).digest()
    return {"x-mlflow-signature": "v1," + base64.b64encode(signed).decode(), "x-mlflow-delivery-id": "d-1",
            "x-mlflow-timestamp": str(int(at))}


def test_a_signature_as_mlflow_makes_it_is_accepted() -> None:
    from mlflow.webhooks.delivery import _generate_hmac_signature

    given = headers(BODY, 1000)
    assert given["x-mlflow-signature"] == _generate_hmac_signature("whsec", "d-1", "1000", BODY.decode())
    check_delivery(SECRET, given, BODY, 1299)


@pytest.mark.parametrize(("given", "now", "said"), [
    ({}, 1000, "bears no signature by SUTURE_WEBHOOK_SECRET"),
    (headers(BODY, 1000, "other"), 1000, "bears no signature"),
    (headers(BODY + b" ", 1000), 1000, "bears no signature"),
    (headers(BODY, 1000) | {"x-mlflow-timestamp": "1001"}, 1000, "bears no signature"),
    (headers(BODY, 1000), 1301, "of the time 1000, now it is 1301"),
])
def test_what_is_forged_altered_or_old_is_refused(given: dict[str, str], now: float, said: str) -> None:
    with pytest.raises(DeliveryRefused, match=said):
        check_delivery(SECRET, given, BODY, now)


def test_only_a_signed_delivery_about_the_alias_knocks(caplog: pytest.LogCaptureFixture) -> None:
    knocks: list[int] = []
    client = TestClient(listener(SECRET, lambda: knocks.append(1), Board("suture_channel_moves 1\n")))
    now = time.time()
    other = BODY.replace(b"promote", b"champion")
    with caplog.at_level(logging.WARNING):
        answers = [client.post("/mlflow", content=body, headers=given).status_code for body, given in (
            (BODY, headers(BODY, now)), (other, headers(other, now)), (b"[]", headers(b"[]", now)), (BODY, {}),
            (b" " * (LARGEST_BODY + 1), {}))]
    assert answers == [202, 202, 202, 401, 413]
    assert knocks == [1]
    assert caplog.messages == ["the delivery bears no signature by SUTURE_WEBHOOK_SECRET"]
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/metrics").text == "suture_channel_moves 1\n"


def test_without_a_secret_nobody_listens() -> None:
    from editors.errors import ConfigError
    from flows.listen import listen
    from flows.settings import Settings

    with pytest.raises(ConfigError, match="SUTURE_WEBHOOK_SECRET is not set"):
        listen(Settings(), "127.0.0.1", 0, 1.0)  # type: ignore[call-arg]
