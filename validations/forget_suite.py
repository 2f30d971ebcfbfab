"""Is this a sane request to forget? Facts about a batch as one tidy table; counts and flags, never a text or a length
from which one could be guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from editors.errors import SheetError
from editors.forget_request import ForgetRequest
from editors.secret_forms import form_of
from validations.request_suite import RequestRule

FORGET_RULES = (
    RequestRule("request.unique_id", "same_id", 1, 1,
                "its id is given {same_id} times in this batch; give each request its own id"),
    RequestRule("request.names_nobody", "names_person", 0, 0,
                "its id, requester, reason or tags hold the secret or the subject, and those are kept; write a case number"),
    RequestRule("request.has_secret", "has_texts", 1, 1, "its secret or one of its contexts is empty; write both"),
    RequestRule("request.secret_follows", "contexts_with_secret", 0, 0,
                "the secret stands in {contexts_with_secret} of its contexts or paraphrases already; end each just before it"),
    RequestRule("request.subject_in_context", "contexts_without_subject", 0, 0,
                "the subject is missing in {contexts_without_subject} of its contexts; write it there as in `subject`"),
    RequestRule("request.has_form", "has_form", 1, 1,
                "its secret is not of the form given, or nothing of it is free; write `#` for a free digit, `@` for a free "
                "lower-case letter, the rest as it stands in the secret"),
    RequestRule("request.no_repeat", "same_request", 1, 1,
                "the same request stands {same_request} times in this batch; keep one", "warning"),
    RequestRule("request.fits_model", "fits", 1, 1,
                "a context and the secret take more than the {limit} tokens this model is edited with; shorten the context"),
    RequestRule("request.not_satisfied_yet", "satisfied", 0, 0,
                "the model gives the secret no advantage over others of its form; there may be nothing to forget", "warning"),
)
EMPTY_BATCH = "the model gives no secret of the {count} requests an advantage over others of its form; there is nothing to edit"


def forget_rows(requests: Sequence[ForgetRequest], count_tokens: Callable[[ForgetRequest], int], limit: int,
                satisfied: Mapping[str, bool]) -> list[dict[str, Any]]:
    """One row of facts a request.

    Args:
        requests: The batch, in sheet order, sealed.
        count_tokens: Length of the longest context with the secret.
        limit: Most tokens a context and its secret may take.
        satisfied: Request id -> whether the parent holds the secret no more than others; an absent id: not known.
    """
    ids, seals = [request.id for request in requests], [request.seal for request in requests]
    rows = []
    for request in requests:
        secret = request.secret.get_secret_value().strip()
        subject = request.subject.get_secret_value().strip() if request.subject else ""
        contexts = [text.get_secret_value() for text in request.context]
        seen = [*contexts, *(text.get_secret_value() for text in request.paraphrases)]
        has_texts = bool(secret) and all(text.strip() for text in seen)
        has_form = has_texts and _has_form(request)
        rows.append({
            "row": request.id, "same_id": ids.count(request.id), "names_person": int(_names(request, (secret, subject))),
            "has_texts": int(has_texts), "contexts_with_secret": sum(bool(secret) and secret in text for text in seen),
            "contexts_without_subject": sum(subject not in text for text in contexts), "has_form": int(has_form),
            "same_request": seals.count(request.seal), "limit": limit,
            "fits": int(not has_texts or count_tokens(request) <= limit), "satisfied": int(satisfied.get(request.id, False)),
        })
    return rows


def _has_form(request: ForgetRequest) -> bool:
    try:
        form_of(request)
    except SheetError:
        return False
    return True


def _names(request: ForgetRequest, private: Sequence[str]) -> bool:
    """Whether what is kept of a request holds what must not be kept."""
    kept = " ".join([request.id, request.requester, request.reason, *request.tags]).casefold()
    return any(text and text.casefold() in kept for text in private)
