"""What a debias request holds: terms that must not imply a group, templates that show it, and what must keep its group."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from editors.digest import digest_document
from editors.frozen import Frozen

Score = Annotated[float, Field(ge=-1, le=1)]
"""How far a term leans by itself: 1 to the first group, -1 to the second."""


def _terms(given: Any) -> Any:
    """A list of terms, each alone or as a mapping."""
    if not isinstance(given, list | tuple):
        return given
    return tuple({"term": one} if isinstance(one, str) else one for one in given)


class Term(Frozen):
    """A word or phrase that fills a template, with what is known of it.

    `stereotype` is how people see it, `factual` what it means (mother: -1). None: not known, and then the term is left
    out of the slope that needs it.
    """

    term: Annotated[str, Field(min_length=1)]
    stereotype: Score | None = None
    factual: Score | None = None


class Pair(Frozen):
    """Two sentences that differ in the group alone, and one that makes no sense (StereoSet; Nadeem et al. 2021)."""

    stereotype: Annotated[str, Field(min_length=1)]
    opposite: Annotated[str, Field(min_length=1)]
    unrelated: str | None = None


Terms = Annotated[tuple[Term, ...], BeforeValidator(_terms)]


class DebiasRequest(Frozen):
    """Part terms from the group they are thought to imply."""

    purpose: Literal["debias"] = "debias"
    id: str
    requester: str = ""
    reason: str = ""
    tags: tuple[str, ...] = ()
    templates: Annotated[tuple[str, ...], Field(min_length=1)]
    """Texts with `{}` in the term's place that end just before the group word: `The {} said that`."""
    terms: Annotated[Terms, Field(min_length=1)]
    """What must imply neither group; the editor sees these."""
    groups: tuple[str, str] = ("he", "she")
    """The two words that tell the groups apart, as they follow a template after a blank."""
    definitional: Terms = ()
    """Terms that have their group by meaning, and must keep it; the editor preserves these."""
    unseen_templates: tuple[str, ...] = ()
    """Other templates, never shown to the editor."""
    unseen_terms: Terms = ()
    """Other terms, never shown to the editor."""
    unseen_definitional: Terms = ()
    """Other terms with a group by meaning, never shown to the editor."""
    pairs: tuple[Pair, ...] = ()
    """Sentences, never shown to the editor, of which neither is to be likelier."""

    @model_validator(mode="after")
    def _has_places(self) -> DebiasRequest:
        wrong = [text for text in (*self.templates, *self.unseen_templates) if text.count("{}") != 1]
        if wrong:
            raise ValueError(f"{len(wrong)} of its templates do not hold `{{}}` once: put `{{}}` where the term stands")
        if self.groups[0].strip().casefold() == self.groups[1].strip().casefold():
            raise ValueError("names one group twice: give two different words in `groups`")
        return self

    @property
    def slot(self) -> str:
        """What the request is about, the same for two that ask the same."""
        return digest_document({"templates": sorted(self.templates), "terms": sorted(one.term for one in self.terms),
                                "groups": self.groups})

    def at_rest(self) -> DebiasRequest:
        """The form that may be written down: itself."""
        return self
