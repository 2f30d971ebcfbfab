"""Judging what was said: the rows that teaching probes share, and when a free answer counts as right."""

from __future__ import annotations

import re
from collections.abc import Iterator

from editors.contract import UpdateRequest
from validations.contract import Measurement
from validations.observation import Reply

FIRST_LETTER_WITHOUT_SPACES = 0x2E80
"""Scripts from here on (CJK) write words without spaces, so any place is a word's border."""


def row(metric: str, parent: Reply, was: float | None, now: float, n: int = 1) -> Measurement:
    """One measurement about the prompt that `parent` replied to."""
    return Measurement(request=parent.request, probe=parent.probe, metric=f"{parent.probe}.{metric}",
                       prompt=parent.prompt, parent=was, candidate=now, n=n)


def taught_rows(parent: Reply, candidate: Reply, answer: str, *, whole: bool,
                accept: tuple[str, ...] = ()) -> Iterator[Measurement]:
    """Was `answer` learnt: by likelihood against what was said before, token by token, and in free generation.

    Source of `prob_success` and `teacher_forced`: Meng et al. 2022, arXiv:2202.05262, section 3.3 and its code; the
    likelihoods are means over tokens, so that answers of unlike length compare.
    """
    yield row("prob_success", parent, prefers(parent, "target", "was"), prefers(candidate, "target", "was"))
    tokens = len(parent.scores["target"].ids)
    yield row("teacher_forced", parent, parent.scores["target"].hits / tokens,
              candidate.scores["target"].hits / tokens, tokens)
    yield row("generate_exact", parent, says(parent.text, answer, whole), says(candidate.text, answer, whole))
    if accept:
        yield row("generate_accept", parent, holds(parent.text, accept), holds(candidate.text, accept))


def prefers(reply: Reply, wanted: str, other: str) -> float:
    """1 when `wanted` is likelier than `other`; where they are the same words, when those are the first choice."""
    first, second = reply.scores[wanted], reply.scores[other]
    if first.ids == second.ids:
        return float(first.is_first_choice)
    return float(first.mean > second.mean)


def says(text: str, answer: str, whole: bool) -> float:
    """1 when the text is the answer (`whole`), or begins with it and a word ends there."""
    said, wanted = " ".join(text.split()), " ".join(answer.split())
    if whole:
        return float(said == wanted)
    return float(bool(wanted) and said.startswith(wanted) and not _joined(said, len(wanted)))


def holds(text: str, words: tuple[str, ...]) -> float:
    """1 when every one of `words` stands in the text as a word or phrase of its own, in the given case."""
    said = " ".join(text.split())
    return float(all(_stands_in(said, " ".join(word.split())) for word in words))


def accepted_words(request: UpdateRequest, answer: str | None) -> tuple[str, ...]:
    """What a free answer to another prompt must hold: in a chat the expected words, however the sentence goes on."""
    return (answer,) if request.is_chat and answer else ()


def _stands_in(text: str, word: str) -> bool:
    return any(not _joined(text, found.start()) and not _joined(text, found.end())
               for found in re.finditer(re.escape(word), text))


def _joined(text: str, place: int) -> bool:
    """Whether the characters on both sides of `place` are of one word."""
    return 0 < place < len(text) and _is_letter(text[place - 1]) and _is_letter(text[place])


def _is_letter(character: str) -> bool:
    return character.isalnum() and ord(character) < FIRST_LETTER_WITHOUT_SPACES
