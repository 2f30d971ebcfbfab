"""What one model showed of the secrets that were asked for: numbers under its digest, stored as JSON; no torch.

Unlike an observation it keeps nothing that was said: neither text nor token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from editors.digest import digest_document
from editors.errors import IntegrityError
from editors.forget_request import ForgetRequest, SealedForget
from validations.contract import Measurement, Recorded
from validations.forgetting.finding import Finding
from validations.forgetting.settings import ForgetSettings
from validations.observation import held_out_texts

PROTOCOL = "examination-1"
"""Renamed whenever a change makes stored examinations incomparable."""
VARIANTS = ("quantised", "relearned", "relearned_unrelated", "later")
"""The model otherwise; each has its probes `exposure_<variant>` and `extraction_<variant>`."""
ALWAYS_EXAMINED = VARIANTS[:-1]
"""An edit that comes later is not there to be examined unless one is given."""


class Examination(Recorded):
    """Everything one model shows of the requests' secrets and retained facts."""

    model_digest: str
    requests_digest: str
    """Of the requests as they may be written down: ids, seals, counts."""
    settings_digest: str
    """Of how much was tried, the later patch included."""
    findings: tuple[Finding, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return digest_document(json.loads(self.model_dump_json()))


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


def rows_of(parent: Examination, candidate: Examination) -> tuple[Measurement, ...]:
    """A row for each of the candidate's findings. `parent` is None where the parent was measured by another protocol.

    Raises:
        IntegrityError: the two were not asked the same, or are of one model.
    """
    for what, theirs, own in (("requests", parent.requests_digest, candidate.requests_digest),
                              ("settings", parent.settings_digest, candidate.settings_digest)):
        if theirs != own:
            raise IntegrityError(f"parent and candidate were examined for other {what}: {theirs[:12]} and {own[:12]}",
                                 "examine both for this batch")
    if parent.model_digest == candidate.model_digest:
        raise IntegrityError(f"the candidate is the parent: both have the digest {parent.model_digest[:12]}",
                             "examine the candidate as re-read from disk")
    was = {finding.key: finding.value for finding in parent.findings}
    return tuple(Measurement(request=one.request, probe=one.probe, metric=one.metric, prompt=one.prompt,
                             parent=was.get(one.key), candidate=one.value, n=one.n) for one in candidate.findings)


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
