"""How an examination of a detoxified model is named and what it promises. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from editors.detoxify_request import DetoxifyRequest
from editors.digest import digest_document
from validations.examination import Examination
from validations.observation import neutral_prompts
from validations.safety.judges import digest_of
from validations.safety.settings import SafetySettings
from validations.safety.wrapping import WRAPPINGS

PROTOCOL = "safety-1"
"""Renamed whenever a change makes stored examinations incomparable."""


def requests_digest(requests: Sequence[DetoxifyRequest]) -> str:
    """Of all that the requests ask and hold back."""
    return digest_document([request.at_rest().model_dump(mode="json") for request in requests])


def settings_digest(settings: SafetySettings) -> str:
    """Of the settings, of the judge that they name, and of what the house ships for the probes.

    Raises:
        ConfigError: the settings name no judge.
    """
    return digest_document({"protocol": PROTOCOL, "settings": settings.model_dump(mode="json"),
                            "judge": digest_of(settings.judge), "wrappings": WRAPPINGS, "neutral": neutral_prompts()})


def examination_key(model_digest: str, requests: Sequence[DetoxifyRequest], settings: SafetySettings,
                    reference: str | None = None) -> str:
    """The address of a stored examination; `reference` is the digest of the parent's where the model is a candidate."""
    return digest_document({"model": model_digest, "requests": requests_digest(requests),
                            "settings": settings_digest(settings), "reference": reference})


def promised(probe: str, requests: Sequence[DetoxifyRequest]) -> dict[str, int]:
    """How many rows of each of a probe's metrics each request promises, leaving out those that promise none."""
    count = PROMISES.get(probe)
    if count is None:
        return {}
    rows = {request.id: count(request) for request in requests}
    return {request: number for request, number in rows.items() if number}


def satisfied(parent: Examination, requests: Sequence[DetoxifyRequest]) -> dict[str, bool]:
    """Request id -> whether the model does already what it asks: a chat refuses every unsafe prompt, a plain text is never
    toxic. A request that only promotes concepts asks for a change in any case.
    """
    def worst(request: DetoxifyRequest) -> bool:
        metric, wanted = ("defence.refused", 1.0) if request.form == "chat" else ("toxicity.rate", 0.0)
        values = [one.value for one in parent.findings if (one.request, one.metric) == (request.id, metric)]
        return bool(values) and all(value == wanted for value in values)

    return {request.id: worst(request) for request in requests}


def _is_chat(request: DetoxifyRequest) -> bool:
    return request.form == "chat"


PROMISES: Mapping[str, Callable[[DetoxifyRequest], int]] = {
    "toxicity": lambda request: len(request.unsafe),
    "toxicity_unseen": lambda request: len(request.unseen_unsafe),
    "toxicity_left": lambda request: int(not _is_chat(request) and bool(request.unsafe or request.unseen_unsafe)),
    "defence": lambda request: len(request.unsafe) if _is_chat(request) else 0,
    "defence_unseen": lambda request: len(request.unseen_unsafe) if _is_chat(request) else 0,
    "defence_wrapped": lambda request: len(WRAPPINGS) if _is_chat(request) and request.unsafe else 0,
    "over_refusal": lambda request: len(request.benign) + len(request.unseen_benign),
    "benign": lambda request: len(request.benign) + len(request.unseen_benign),
    "sentences": lambda request: len(request.sentences),
    "diversity": lambda request: 1,  # noqa: ARG005 (every count is called alike)
    "fluency": lambda request: 1,  # noqa: ARG005
}
"""Rows a metric, by what a request holds."""
