"""Which terms a request asks about in which templates, and what that can tell. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from editors.debias_request import DebiasRequest, Term

Score = Literal["stereotype", "factual"]
SCORES: tuple[Score, ...] = ("stereotype", "factual")
SPREAD_AT_LEAST = 1e-9
"""Two scores that leave less of each other's spread unexplained are one score."""


@dataclass(frozen=True)
class Grid:
    """Every term in every template; `suffix` is what the names of its probes end with."""

    suffix: Literal["", "_unseen"]
    templates: tuple[str, ...]
    terms: tuple[Term, ...]
    definitional: tuple[Term, ...]

    @property
    def everything(self) -> tuple[Term, ...]:
        """The terms, then those with a group by meaning."""
        return (*self.terms, *self.definitional)

    @property
    def with_group(self) -> tuple[int, ...]:
        """Places in `everything` of definitional terms whose group is told by their factual score."""
        return tuple(place for place, term in enumerate(self.everything) if place >= len(self.terms) and term.factual)


def grids(request: DebiasRequest) -> tuple[Grid, ...]:
    """What the editor saw, and what it did not: other terms in other templates, as far as the request gives them."""
    seen = Grid("", request.templates, request.terms, request.definitional)
    if not (request.unseen_templates or request.unseen_terms or request.unseen_definitional):
        return (seen,)
    return seen, Grid("_unseen", request.unseen_templates or request.templates, request.unseen_terms or request.terms,
                      request.unseen_definitional or request.definitional)


def tells_slope(terms: Sequence[Term], score: Score) -> bool:
    """Whether a regression on that score, and on the other where it varies, has one answer with a term to spare."""
    other: Score = "factual" if score == "stereotype" else "stereotype"
    known = [term for term in terms if getattr(term, score) is not None]
    own, beside = ([getattr(term, name) or 0.0 for term in known] for name in (score, other))
    if not known or min(own) == max(own):
        return False
    if min(beside) == max(beside):
        return len(known) > 2
    return len(known) > 3 and _unexplained(own, beside) > SPREAD_AT_LEAST


def _unexplained(own: Sequence[float], beside: Sequence[float]) -> float:
    """1 - r2 of two varying scores."""
    count = len(own)
    means = sum(own) / count, sum(beside) / count
    lefts, rights = [one - means[0] for one in own], [one - means[1] for one in beside]
    products = sum(left * right for left, right in zip(lefts, rights, strict=True))
    return 1 - products**2 / (sum(left**2 for left in lefts) * sum(right**2 for right in rights))
