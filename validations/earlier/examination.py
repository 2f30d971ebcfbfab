"""Which earlier requests are asked again, how that is named, and what it promises. No torch.

An earlier fact is one answer, which the probe `history` asks for. What must be refused, or must not lean, is a rate over
many prompts, so an earlier request of these purposes is one row: the rate on the prompts that the editor was shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from editors.contract import EditBatch, EditRequest
from editors.debias_request import DebiasRequest
from editors.detoxify_request import DetoxifyRequest
from editors.digest import digest_document

PROTOCOL = "earlier-1"
"""Renamed whenever a change makes stored examinations incomparable."""
DEFENCE, LEANING = "history_defence", "history_leaning"
Kept = DetoxifyRequest | DebiasRequest


def kept_requests(batch: EditBatch, earlier: Sequence[EditRequest]) -> tuple[Kept, ...]:
    """Accepted requests that must go on holding; what the batch asks again itself is replaced, not kept.

    The batch of a removal is what stays, so there it is the batch's own. Texts that are only to be less toxic are not
    among them: that would be drawn texts, whose rate wanders more than an unrelated edit moves it.
    """
    if batch.purpose == "removal":
        return _asked_again(batch.requests)
    replaced = {request.slot for request in batch.requests}
    return _asked_again([request for request in earlier if request.slot not in replaced])


def requests_digest(requests: Sequence[Kept]) -> str:
    """Of the requests as they may be written down."""
    return digest_document([request.at_rest().model_dump(mode="json") for request in requests])


def examination_key(model_digest: str, requests: Sequence[Kept]) -> str:
    """The address of a stored examination: the same model and requests give the same key."""
    return digest_document({"model": model_digest, "requests": requests_digest(requests), "protocol": PROTOCOL})


def promised(probe: str, requests: Sequence[Kept]) -> dict[str, int]:
    """How many rows each request promises for a probe: one; those of another kind none."""
    kind = DetoxifyRequest if probe == DEFENCE else DebiasRequest
    return dict(Counter(request.id for request in requests if isinstance(request, kind)))


def _asked_again(requests: Sequence[EditRequest]) -> tuple[Kept, ...]:
    return tuple(request for request in requests if isinstance(request, DebiasRequest)
                 or (isinstance(request, DetoxifyRequest) and request.form == "chat" and request.unsafe))
