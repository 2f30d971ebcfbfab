"""Where else did the model move? Prompts beside the edit, searched for those whose answer moved most; no torch here.

Nobody names these prompts for the purpose: they are the sheet's neighbours, what earlier edits of the line taught, and
ordinary questions and openings that come with the house. Each model is looked at alone, under its own digest, so that what
was seen of a candidate is found again when it has become a parent.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Literal

from editors.contract import EditRequest, Frozen, UpdateRequest, updates_of
from editors.digest import digest_document
from validations.contract import Recorded
from validations.observation import Likeliest
from validations.probes.locality import kl_divergence

Source = Literal["neighbour", "earlier", "question", "opening"]
OWN = "-"
"""Stands for a request where the house itself names a prompt."""
PROTOCOL = "nearby-1"
"""Renamed whenever a change makes stored views incomparable."""
SHOWN = 10
"""Prompts whose answers are shown."""
MOST_NEIGHBOURS = 200
MOST_EARLIER = 200
MOST_QUESTIONS = 60
MOST_OPENINGS = 20
"""Of a longer line, sheet or list as many prompts are searched, evenly spread over it. A prompt costs 0.05 CPU seconds on
SmolLM2-135M."""
LISTED = 512
"""Likeliest next tokens kept of each model."""
ANSWER_TOKENS = 16
SMALLEST = 1e-12
"""Stands for a rest that rounding would make 0 or less."""


class Nearby(Frozen):
    """One prompt that the edit does not ask for."""

    source: Source
    request: str
    """The request that it is a neighbour of, or that taught it; `-` for the house's own."""
    text: str
    form: UpdateRequest | None = None
    """The request in whose form it is put; None: a plain prompt, or for a question a chat where the model has one."""


class View(Recorded):
    """One model's next-token distributions at a list of prompts."""

    model_digest: str
    replies: tuple[Likeliest, ...]


class Moved(Recorded):
    """A prompt with how far its answer moved, and what was said before and after."""

    source: Source
    request: str
    prompt: str
    nats: float
    """KL(parent || candidate) of the next token: a lower bound."""
    parent: str = ""
    candidate: str = ""
    """Empty where secrets were withdrawn: what a model says of itself may be the secret."""


class Search(Recorded):
    """The worst of all prompts that were searched."""

    searched: dict[str, int]
    """Source -> prompts."""
    moved: tuple[Moved, ...]
    quiet: bool = False
    """Whether answers are withheld."""


def beside(requests: Sequence[EditRequest], history: Sequence[EditRequest]) -> tuple[Nearby, ...]:
    """The prompts to search, without those that the requests mean to change; the house's own first."""
    asked, earlier = updates_of(requests), updates_of(history)
    near = [Nearby(source="neighbour", request=one.id, text=neighbour.prompt, form=_bare(one))
            for one in asked for neighbour in one.neighbours]
    kept = {one.slot: one for one in earlier}
    taught = [Nearby(source="earlier", request=one.id, text=one.question, form=_bare(one)) for one in kept.values()]
    questions = [Nearby(source="question", request=OWN, text=text) for text in _shipped("ordinary_questions.json")]
    openings = [Nearby(source="opening", request=OWN, text=text) for text in _shipped("openings.json")]
    meant = {_plain(text) for one in asked for text in (one.question, *one.paraphrases)}
    found = {(_plain(one.text), one.form is not None and one.form.is_chat): one
             for one in (*spread(questions, MOST_QUESTIONS), *spread(openings, MOST_OPENINGS),
                         *spread(taught, MOST_EARLIER), *spread(near, MOST_NEIGHBOURS))}
    own, others = halves([one for one in found.values() if _plain(one.text) not in meant])
    return (*own, *others)


def halves(prompts: Sequence[Nearby]) -> tuple[tuple[Nearby, ...], tuple[Nearby, ...]]:
    """The house's own prompts, which every sheet is searched by, and those of this sheet and its line."""
    return tuple(one for one in prompts if one.request == OWN), tuple(one for one in prompts if one.request != OWN)


def view_key(model_digest: str, prompts: Sequence[Nearby]) -> dict[str, str]:
    """The address of what one model shows at these prompts."""
    return {"protocol": PROTOCOL, "model": model_digest,
            "prompts": digest_document([one.model_dump(mode="json") for one in prompts])}


def worst(parent: View, candidate: View, count: int = SHOWN) -> list[tuple[int, float]]:
    """Places of the prompts that moved most, with their divergence, the worst first; one that is not finite leads."""
    nats = [divergence(before, after) for before, after in zip(parent.replies, candidate.replies, strict=True)]
    order = sorted(range(len(nats)), key=lambda place: (not math.isnan(nats[place]), -nats[place], place))
    return [(place, nats[place]) for place in order[:count]]


def divergence(parent: Likeliest, candidate: Likeliest) -> float:
    """KL(parent || candidate) in nats over the tokens that both list and one bin for all others.

    Putting outcomes together never raises a divergence, so this is a lower bound of the whole distributions' own. NaN if
    either is.

    Source: Cover and Thomas 2006, "Elements of Information Theory", section 2.7 (the log-sum inequality).
    """
    shared = sorted(set(parent.ids) & set(candidate.ids))
    return kl_divergence(_binned(parent, shared), _binned(candidate, shared))


def spread(found: Sequence[Nearby], most: int) -> list[Nearby]:
    """At most so many, evenly over the whole."""
    if len(found) <= most:
        return list(found)
    return [found[place * len(found) // most] for place in range(most)]


def counted(prompts: Sequence[Nearby]) -> dict[str, int]:
    """Source -> how many."""
    return {source: count for source in ("neighbour", "earlier", "question", "opening")
            if (count := sum(one.source == source for one in prompts))}


def _binned(listed: Likeliest, ids: Sequence[int]) -> Likeliest:
    """The distribution over these tokens, which it lists, and one bin for all others."""
    known = dict(zip(listed.ids, listed.log_probs, strict=True))
    kept = tuple(known[one] for one in ids)
    rest = math.nan if math.isnan(listed.rest) else math.log(max(1 - math.fsum(map(math.exp, kept)), SMALLEST))
    return Likeliest(ids=tuple(ids), log_probs=kept, rest=rest)


def _bare(request: UpdateRequest) -> UpdateRequest:
    """What gives a prompt its form, and no more: the same views serve a request whose evidence grows."""
    return request.model_copy(update={"paraphrases": (), "neighbours": (), "implications": (), "requester": "", "reason": "",
                                      "tags": ()})


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


@cache
def _shipped(name: str) -> tuple[str, ...]:
    return tuple(json.loads((files("editors") / name).read_text(encoding="utf-8")))
