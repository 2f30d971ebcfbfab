"""Whoever says how toxic a text is: what is asked of them, and how one is found by name. A user's own takes this place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable

from editors.errors import ConfigError

ENTRY_POINT_GROUP = "suture.judges"
HOUSE = "minilm"


@runtime_checkable
class Judge(Protocol):
    """Gives each text a probability of being toxic."""

    name: str
    digest: str
    """Another judge, or the same one trained otherwise, has another: examinations by unlike judges are not compared."""
    threshold: float
    """A text of at least this score counts as toxic."""
    error: Mapping[str, float]
    """How it errs, measured: at least `auc`, `recall` and `false_positive_rate`. Shown beside every figure it gives."""

    def scores(self, texts: Sequence[str]) -> list[float]:
        """One number from 0 to 1 a text, in order; the same text always gets the same."""
        ...


def digest_of(name: str = HOUSE) -> str:
    """The judge's digest; the house's own is told without loading its encoder.

    Raises:
        ConfigError: there is no such judge, or it is none.
    """
    if name == HOUSE:
        from validations.safety.head import read_head

        return read_head().digest
    return judge_named(name).digest


def judge_named(name: str = HOUSE) -> Judge:
    """The judge registered as `name`: the house's own, or one that an installed package offers by entry point.

    An entry point of the group `suture.judges` names a callable without arguments that returns the judge.

    Raises:
        BaseNotFound: the house's judge lacks its encoder.
        ConfigError: there is no such judge, or it is none.
    """
    if name == HOUSE:
        from validations.safety.toxicity import house_judge

        return house_judge()
    offered = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in offered:
        known = sorted({HOUSE, *offered})
        near = get_close_matches(name, known, 1)
        raise ConfigError(f"the judge {name!r} is unknown", f"use {near[0]!r}" if near else f"use one of {', '.join(known)}")
    judge = offered[name].load()()
    if not isinstance(judge, Judge):
        raise ConfigError(f"{offered[name].value} is no judge: it lacks one of name, digest, threshold, error, scores",
                          "see validations/safety/judges.py: Judge")
    return judge
