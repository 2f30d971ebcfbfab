"""Is this a sane request? Facts about a batch as one tidy table, and what each failed fact means for its author.

The table holds ids, digests, counts and flags, never the text of a request: Great Expectations keeps results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from editors.contract import Frozen, UpdateRequest
from editors.errors import SheetError
from validations.contract import Severity

TokenCounter = Callable[[UpdateRequest], int]
"""Tokens of the request's prompt and target together, as the model reads them."""
MOST = 10**9


class Problem(Frozen):
    """Something wrong with one request, or with the batch (`request` is then `-`)."""

    request: str
    rule: str
    severity: Severity
    message: str

    def __str__(self) -> str:
        return f"request {self.request!r}: {self.message}" if self.request != "-" else self.message


@dataclass(frozen=True)
class RequestRule:
    """One fact every request must satisfy: `lowest <= column <= highest`."""

    name: str
    column: str
    lowest: int
    highest: int
    message: str
    """Filled from the request's row."""
    severity: Severity = "critical"


REQUEST_RULES = (
    RequestRule("request.unique_id", "same_id", 1, 1,
                "its id is given {same_id} times in this batch; give each request its own id"),
    RequestRule("request.subject_in_prompt", "subject_places", 1, 1,
                "the subject's place is found {subject_places} times in its prompt, expected once; put `{{}}` where the "
                "subject stands"),
    RequestRule("request.has_target", "target_characters", 1, MOST,
                "its target is empty; write the answer the model should give"),
    RequestRule("request.changes_something", "target_differs", 1, 1,
                "its target is the same as `was`; ask for another answer or remove the request"),
    RequestRule("request.no_contradiction", "targets_in_slot", 1, 1,
                "the batch asks {targets_in_slot} different answers of the same question (see {same_slot}); keep one"),
    RequestRule("request.no_repeat", "same_request", 1, 1,
                "the same question and answer stand {same_request} times in this batch (see {same_slot}); keep one",
                "warning"),
    RequestRule("request.fits_model", "room", 0, MOST,
                "prompt and target take {tokens} tokens, more than the {limit} this model is edited with; shorten it"),
    RequestRule("request.not_satisfied_yet", "satisfied", 0, 0,
                "the model answers so already; the request is kept and measured, but there is nothing to teach",
                "warning"),
)


NOTHING_TO_TEACH = "the model gives the wanted answer to all {count} requests already; there is nothing to edit"


def request_rows(requests: Sequence[UpdateRequest], count_tokens: TokenCounter, limit: int,
                 satisfied: Mapping[str, bool]) -> list[dict[str, Any]]:
    """One row of facts a request.

    Args:
        requests: The batch, in sheet order.
        count_tokens: Length of prompt and target as rendered for the model.
        limit: Most tokens a prompt and target may take.
        satisfied: Request id -> whether the parent gives the target already; an absent id counts as not satisfied.
    """
    ids = [request.id for request in requests]
    asked = [(request.slot, _folded(request.target_text)) for request in requests]
    rows = []
    for request, (slot, target) in zip(requests, asked, strict=True):
        tokens = _tokens(request, count_tokens)
        rows.append({
            "row": request.id,
            "same_id": ids.count(request.id),
            "subject_places": _subject_places(request),
            "target_characters": len(target),
            "target_differs": int(request.was is None or _folded(request.was) != target),
            "targets_in_slot": len({other for place, other in asked if place == slot}),
            "same_request": asked.count((slot, target)),
            "same_slot": ", ".join(sorted({other for other, (place, _) in zip(ids, asked, strict=True) if place == slot})),
            "tokens": tokens, "limit": limit, "room": limit - tokens,
            "satisfied": int(satisfied.get(request.id, False)),
        })
    return rows


def broken(rule: RequestRule, rows: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """The rule's problems, one a request id."""
    by_id = {row["row"]: row for row in rows if not rule.lowest <= row[rule.column] <= rule.highest}
    return [Problem(request=request, rule=rule.name, severity=rule.severity, message=rule.message.format(**row))
            for request, row in by_id.items()]


def whole_batch_problems(rows: Sequence[Mapping[str, Any]], nothing_left: str = NOTHING_TO_TEACH) -> list[Problem]:
    """What is wrong with the batch as a whole: nothing in it, or nothing left to do (`nothing_left`)."""
    if not rows:
        return [Problem(request="-", rule="batch.not_empty", severity="critical", message="the batch holds no request")]
    if all(row["satisfied"] for row in rows):
        return [Problem(request="-", rule="batch.something_to_teach", severity="critical",
                        message=nothing_left.format(count=len(rows)))]
    return []


def _subject_places(request: UpdateRequest) -> int:
    """Where the subject's place is found; 1 for a chat request without a subject, which needs none."""
    if request.prompt is not None:
        if not (request.subject or "").strip():
            return 0
        return request.prompt.count("{}") or int((request.subject or "") in request.prompt)
    return 1 if request.subject is None else int(bool(request.subject) and request.subject in request.question)


def _tokens(request: UpdateRequest, count_tokens: TokenCounter) -> int:
    try:
        return count_tokens(request)
    except SheetError as error:
        raise SheetError(f"request {request.id!r} cannot be rendered: {error.message}", error.hint) from error


def _folded(text: str) -> str:
    """Text for comparing answers: case, blanks and a closing full stop do not make another answer."""
    return " ".join(text.casefold().split()).rstrip(".")
