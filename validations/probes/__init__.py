"""The measuring side's door: one question asked of a model, one file, one lazy line here.

A probe turns a scope into questions, and pairs of replies (the parent's, the candidate's) into rows; it never sees a
model. `integrity` looks at files instead and is called by its own name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, ClassVar, Protocol

from validations.contract import Measurement
from validations.observation import Pairs, Question, Scope

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBES = {
    "efficacy": "validations.probes.efficacy:Efficacy",
    "paraphrase": "validations.probes.paraphrase:Paraphrase",
    "neighbourhood": "validations.probes.neighbourhood:Neighbourhood",
    "locality": "validations.probes.locality:Locality",
    "portability": "validations.probes.portability:Portability",
    "history": "validations.probes.history:History",
    "fluency": "validations.probes.fluency:Fluency",
    "perplexity": "validations.probes.perplexity:Perplexity",
}


class Probe(Protocol):
    """One question asked of a model."""

    name: ClassVar[str]

    def questions(self, scope: Scope, tokenizer: PreTrainedTokenizerBase) -> Sequence[Question]:
        """What to ask; the same for parent and candidate."""

    def rows(self, scope: Scope, pairs: Pairs) -> Iterable[Measurement]:
        """Numbers from the replies, in the questions' order."""


def names() -> tuple[str, ...]:
    """Every probe that asks a model, in the order in which they are reported."""
    return tuple(PROBES)


def get(name: str) -> Probe:
    """The probe registered as `name`, imported now."""
    module, _, attribute = PROBES[name].partition(":")
    probe: Probe = getattr(import_module(module), attribute)()
    return probe
