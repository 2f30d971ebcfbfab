"""Is this a sane request to detoxify? Facts about a batch as one tidy table: counts and flags, no text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from editors.detoxify_request import REFUSAL, Benign, DetoxifyRequest, Unsafe
from validations.request_suite import MOST, RequestRule
from validations.safety.refusing import refuses

DETOXIFY_RULES = (
    RequestRule("request.unique_id", "same_id", 1, 1,
                "its id is given {same_id} times in this batch; give each request its own id"),
    RequestRule("request.has_texts", "empty_texts", 0, 0,
                "{empty_texts} of its prompts, answers, concepts or sentences are blank; write or remove them"),
    RequestRule("request.has_evidence", "unsafe_prompts", 1, MOST,
                "it has no unsafe prompt, so nothing would show whether it worked; give `unsafe` or `unseen_unsafe`"),
    RequestRule("request.no_contradiction", "on_both_sides", 0, 0,
                "{on_both_sides} of its prompts are called unsafe and harmless; decide on one"),
    RequestRule("request.no_repeat", "repeated", 0, 0,
                "{repeated} of its prompts or sentences are given more than once, or were shown to the editor and are called "
                "unseen as well; keep one"),
    RequestRule("request.has_chat", "has_chat", 1, 1,
                "it is a chat, but the model's tokenizer has no chat template; use `form: plain`"),
    RequestRule("request.fits_model", "fits", 1, 1,
                "a prompt and its answer take more than the {limit} tokens this model is edited with; shorten them"),
    RequestRule("request.benign_is_answered", "benign_refusals", 0, 0,
                "{benign_refusals} of its harmless prompts have a refusal as their answer; write the answer they should get"),
    RequestRule("request.same_request", "same_request", 1, 1,
                "the same unsafe prompts stand in {same_request} requests of this batch; keep one", "warning"),
    RequestRule("request.has_harmless", "harmless_prompts", 1, MOST,
                "it has no harmless prompt with the same words, so nothing shows whether the model refuses too much; give "
                "`unseen_benign`", "warning"),
    RequestRule("request.has_unseen", "unseen_prompts", 1, MOST,
                "it keeps no unsafe prompt from the editor, so nothing shows how far it reaches; give `unseen_unsafe`",
                "warning"),
    RequestRule("request.answers_refuse", "other_answers", 0, 0,
                "{other_answers} of its answers to unsafe prompts are told from a refusal only by their first words; a plain "
                "refusal is measured more surely", "warning"),
    RequestRule("request.not_satisfied_yet", "satisfied", 0, 0,
                "the model does already what it asks; there may be nothing to edit", "warning"),
)
EMPTY_BATCH = "the model does already what the {count} requests ask; there is nothing to edit"


def detoxify_rows(requests: Sequence[DetoxifyRequest], count_tokens: Callable[[DetoxifyRequest], int], limit: int,
                  satisfied: Mapping[str, bool], *, has_chat: bool) -> list[dict[str, Any]]:
    """One row of facts a request.

    Args:
        requests: The batch, in sheet order.
        count_tokens: Length of the longest prompt with its answer.
        limit: Most tokens a prompt and its answer may take.
        satisfied: Request id -> whether the parent does already what it asks; an absent id: not known.
        has_chat: Whether the model's tokenizer has a chat template.
    """
    ids, slots = [request.id for request in requests], [request.slot for request in requests]
    rows = []
    for request in requests:
        unsafe = [_bare(one.prompt) for one in (*request.unsafe, *request.unseen_unsafe)]
        harmless = [_bare(one.prompt) for one in (*request.benign, *request.unseen_benign)]
        empty = sum(not text.strip() for text in _texts(request))
        is_readable = not empty and (has_chat or request.form == "plain")
        answers = [one.answer or REFUSAL for one in request.unsafe] if request.form == "chat" else []
        rows.append({
            "row": request.id, "same_id": ids.count(request.id), "empty_texts": empty, "unsafe_prompts": len(unsafe),
            "on_both_sides": len([text for text in dict.fromkeys(unsafe) if text in harmless]),
            "repeated": _repeats(unsafe) + _repeats(harmless) + _repeats([_bare(text) for text in request.sentences]),
            "has_chat": int(has_chat or request.form == "plain"), "limit": limit,
            "fits": int(not is_readable or count_tokens(request) <= limit),
            "benign_refusals": sum(refuses(one.answer) for one in (*request.benign, *request.unseen_benign) if one.answer),
            "same_request": slots.count(request.slot), "harmless_prompts": len(harmless),
            "unseen_prompts": len(request.unseen_unsafe), "other_answers": sum(not refuses(answer) for answer in answers),
            "satisfied": int(satisfied.get(request.id, False)),
        })
    return rows


def _texts(request: DetoxifyRequest) -> list[str]:
    prompts: list[Unsafe | Benign] = [*request.unsafe, *request.unseen_unsafe, *request.benign, *request.unseen_benign]
    return [*(one.prompt for one in prompts), *(one.answer for one in prompts if one.answer is not None), *request.concepts,
            *request.sentences]


def _repeats(texts: Sequence[str]) -> int:
    return len(texts) - len(dict.fromkeys(texts))


def _bare(text: str) -> str:
    return " ".join(text.casefold().split())
