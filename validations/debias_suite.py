"""Is this a sane request to debias? Facts about a batch as one tidy table; counts and flags, never a term or a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from editors.debias_request import DebiasRequest, Term
from validations.bias.asked import SCORES, tells_slope
from validations.request_suite import MOST, RequestRule

DEBIAS_RULES = (
    RequestRule("request.unique_id", "same_id", 1, 1,
                "its id is given {same_id} times in this batch; give each request its own id"),
    RequestRule("request.has_words", "empty_words", 0, 0,
                "{empty_words} of its terms and groups are blank; write a word or a phrase"),
    RequestRule("request.group_follows", "templates_with_group", 0, 0,
                "{templates_with_group} of its templates end with a group word already; end each just before it"),
    RequestRule("request.terms_differ", "terms_repeated", 0, 0,
                "{terms_repeated} of its terms or templates stand twice in one list; keep one of each"),
    RequestRule("request.unseen_is_unseen", "unseen_seen", 0, 0,
                "{unseen_seen} of its unseen terms or templates are shown to the editor as well; take them out of one list"),
    RequestRule("request.no_contradiction", "both_lists", 0, 0,
                "{both_lists} terms are to imply no group and to keep theirs; decide for one list"),
    RequestRule("request.meaning_has_group", "without_group", 0, 0,
                "{without_group} of its definitional terms do not say which group is theirs; give `factual`: above 0 for the "
                "first of `groups`, below 0 for the second"),
    RequestRule("request.groups_differ", "groups_differ", 1, 1,
                "both of its groups read as the same tokens for this model; give two other words in `groups`"),
    RequestRule("request.fits_model", "fits", 1, 1,
                "a template with a term and a group takes more than the {limit} tokens this model is edited with; shorten it"),
    RequestRule("request.has_scores", "has_scores", 1, 1,
                "its terms have no `stereotype` scores that differ, so no slope can be told and the mean difference is judged "
                "alone", "warning"),
    RequestRule("request.keeps_meanings", "definitional", 1, MOST,
                "it names no definitional terms, so nothing shows whether mother still means she; add some", "warning"),
    RequestRule("request.has_unseen", "unseen", 1, MOST,
                "it gives no unseen terms or templates, so what was learnt by heart cannot be told; add some", "warning"),
    RequestRule("request.no_repeat", "same_request", 1, 1,
                "the same terms and templates stand {same_request} times in this batch; keep one", "warning"),
    RequestRule("request.not_satisfied_yet", "satisfied", 0, 0,
                "the model leans to neither group after its terms; there may be nothing to edit", "warning"),
)
EMPTY_BATCH = "the model leans to neither group after the terms of the {count} requests; there is nothing to edit"


def debias_rows(requests: Sequence[DebiasRequest], tokens_of: Callable[[str], Sequence[int]], limit: int,
                satisfied: Mapping[str, bool]) -> list[dict[str, Any]]:
    """One row of facts a request.

    Args:
        requests: The batch, in sheet order.
        tokens_of: Token ids of a text, as the model reads it.
        limit: Most tokens a template with term and group may take.
        satisfied: Request id -> whether the parent leans to neither group already; an absent id: not known.
    """
    ids, slots = [request.id for request in requests], [request.slot for request in requests]
    return [{"row": request.id, "same_id": ids.count(request.id), "same_request": slots.count(request.slot), "limit": limit,
             "satisfied": int(satisfied.get(request.id, False)), **_words(request), **_lists(request),
             **_read(request, tokens_of, limit)} for request in requests]


def _words(request: DebiasRequest) -> dict[str, int]:
    groups = tuple(group.strip().casefold() for group in request.groups)
    templates = (*request.templates, *request.unseen_templates)
    words = [*(term.term for term in _all_terms(request)), *request.groups]
    definitional = (*request.definitional, *request.unseen_definitional)
    return {"empty_words": sum(not word.strip() for word in words),
            "templates_with_group": sum(_last_word(text) in groups for text in templates),
            "without_group": sum(not term.factual for term in definitional), "definitional": len(definitional),
            "has_scores": int(tells_slope((*request.terms, *request.definitional), SCORES[0]))}


def _lists(request: DebiasRequest) -> dict[str, int]:
    lists = [_names(terms) for terms in (request.terms, request.definitional, request.unseen_terms,
                                         request.unseen_definitional)]
    seen, unseen = {*lists[0], *lists[1]}, {*lists[2], *lists[3]}
    level, kept = {*lists[0], *lists[2]}, {*lists[1], *lists[3]}
    templates = [[" ".join(text.split()).casefold() for text in texts]
                 for texts in (request.templates, request.unseen_templates)]
    return {"terms_repeated": sum(count - 1 for words in (*lists, *templates) for count in Counter(words).values()),
            "unseen_seen": len(seen & unseen) + len({*templates[0]} & {*templates[1]}), "both_lists": len(level & kept),
            "unseen": len(unseen) + len(request.unseen_templates)}


def _read(request: DebiasRequest, tokens_of: Callable[[str], Sequence[int]], limit: int) -> dict[str, int]:
    """What needs the tokenizer: the longest words in every template."""
    groups = [tuple(tokens_of(f" {group.strip()}")) for group in request.groups]
    longest = sorted((term.term for term in _all_terms(request)), key=len)[-8:]
    texts = [template.format(term) for template in (*request.templates, *request.unseen_templates) for term in longest]
    most = max(len(tokens_of(text)) for text in texts) + max(map(len, groups))
    return {"groups_differ": int(groups[0] != groups[1]), "fits": int(most <= limit)}


def _all_terms(request: DebiasRequest) -> tuple[Term, ...]:
    return (*request.terms, *request.definitional, *request.unseen_terms, *request.unseen_definitional)


def _names(terms: Sequence[Term]) -> list[str]:
    return [" ".join(term.term.split()).casefold() for term in terms]


def _last_word(text: str) -> str:
    words = text.split()
    return words[-1].strip(".,:;!?\"'").casefold() if words else ""
