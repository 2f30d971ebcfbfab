"""Is a delivery from the registry? MLflow signs what it posts, as Standard Webhooks has it.

Source: https://mlflow.org/docs/latest/ml/webhooks/ (signature over delivery id, time and body, HMAC-SHA256).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping

from pydantic import SecretStr

from editors.errors import SutureError

SIGNATURE, DELIVERY, TIME = "x-mlflow-signature", "x-mlflow-delivery-id", "x-mlflow-timestamp"
FRESH_SECONDS = 300.0
"""How old a delivery may be: its retries bear the time of the first try, and end after some seconds."""


class DeliveryRefused(SutureError):
    """A delivery is not the registry's, or is an old one sent again."""


def check_delivery(secret: SecretStr, headers: Mapping[str, str], body: bytes, now: float) -> None:
    """Accept a delivery. `headers` are in lower case; `now` is in seconds since 1970.

    Raises:
        DeliveryRefused: its signature or its time is missing or wrong.
    """
    given, delivery, time = (headers.get(name, "") for name in (SIGNATURE, DELIVERY, TIME))
    content = f"{delivery}.{time}.".encode() + body
    digest = hmac.new(secret.get_secret_value().encode(), content, hashlib.sha256).digest()
    if not hmac.compare_digest(given.encode(), b"v1," + base64.b64encode(digest)):
        raise DeliveryRefused("the delivery bears no signature by SUTURE_WEBHOOK_SECRET",
                              "give the webhook in MLflow that secret")
    if not time.isdigit() or abs(now - int(time)) > FRESH_SECONDS:
        raise DeliveryRefused(f"the delivery is of the time {time or 'that it does not say'}, now it is {now:.0f}",
                              "set the clocks of both machines")
