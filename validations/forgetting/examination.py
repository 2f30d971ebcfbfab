"""How an examination of secrets is named and what it promises; it keeps nothing that was said. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from editors.digest import digest_document
from editors.forget_request import ForgetRequest, SealedForget
from validations.forgetting.settings import ForgetSettings
from validations.observation import held_out_texts

PROTOCOL = "examination-1"
"""Renamed whenever a change makes stored examinations incomparable."""
VARIANTS = ("quantised", "relearned", "relearned_unrelated", "later")
"""The model otherwise; each has its probes `exposure_<variant>` and `extraction_<variant>`."""
ALWAYS_EXAMINED = VARIANTS[:-1]
"""An edit that comes later is not there to be examined unless one is given."""


def requests_digest(requests: Sequence[ForgetRequest | SealedForget]) -> str:
    """The same for the requests with their text and for their sealed forms."""
    return digest_document([request.at_rest().model_dump(mode="json") for request in requests])


def settings_digest(settings: ForgetSettings, later: str | None = None) -> str:
    """Of the settings, of a later patch's digest, and of what the house ships for the attacks."""
    return digest_document({"protocol": PROTOCOL, "settings": settings.model_dump(mode="json"), "later": later,
                            "shipped": held_out_texts()})


def examination_key(model_digest: str, requests: Sequence[ForgetRequest | SealedForget], settings: ForgetSettings,
                    later: str | None = None) -> str:
    """The address of a stored examination: the same model, requests, settings and later patch (its digest) give the same key.

    It can be told from the sealed requests.
    """
    return digest_document({"model": model_digest, "requests": requests_digest(requests),
                            "settings": settings_digest(settings, later)})


def promised(probe: str, requests: Sequence[ForgetRequest | SealedForget]) -> dict[str, int]:
    """How many rows of each of a probe's metrics each request promises, leaving out those that promise none.

    What is not promised is judged where it was measured: chats, where the tokenizer has a template; a later edit, where
    one was given; the batch's own rows.
    """
    count = PROMISES.get(probe)
    if count is None:
        return {}
    rows = {request.id: count(request.at_rest()) for request in requests}
    return {request: number for request, number in rows.items() if number}


def _each_context(request: SealedForget) -> int:
    return request.contexts


def _each_paraphrase(request: SealedForget) -> int:
    return request.paraphrases


def _each_fact(request: SealedForget) -> int:
    return request.retained


def _once(request: SealedForget) -> int:  # noqa: ARG001 (every count is called alike)
    return 1


PROMISES: Mapping[str, Callable[[SealedForget], int]] = {
    "exposure": _each_context, "exposure_by_secret": _once, "membership": _once, "extraction": _each_context,
    "paraphrase": _each_paraphrase, "prefix": _each_context, "cloze": _each_context, "sampling": _once,
    "divergence": _once, "retention": _each_fact, "fluency": _once,
    **{f"exposure_{variant}": _once for variant in ALWAYS_EXAMINED},
    **{f"extraction_{variant}": _each_context for variant in ALWAYS_EXAMINED},
}
"""Rows a metric, by what a sealed request still tells."""
