"""How an examination of biases is named and what it promises. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from editors.debias_request import DebiasRequest
from editors.digest import digest_document
from validations.bias.settings import BiasSettings

PROTOCOL = "bias-1"
"""Renamed whenever a change makes stored examinations incomparable."""


def requests_digest(requests: Sequence[DebiasRequest]) -> str:
    """Of the requests as they may be written down."""
    return digest_document([request.at_rest().model_dump(mode="json") for request in requests])


def settings_digest(settings: BiasSettings) -> str:
    """Of the settings and the protocol."""
    return digest_document({"protocol": PROTOCOL, "settings": settings.model_dump(mode="json")})


def examination_key(model_digest: str, requests: Sequence[DebiasRequest], settings: BiasSettings) -> str:
    """The address of a stored examination."""
    return digest_document({"model": model_digest, "requests": requests_digest(requests),
                            "settings": settings_digest(settings)})
