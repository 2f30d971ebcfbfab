"""From debias requests to facts: where each term is edited, and where its lean towards a group is read.

A term is edited at its own last token, which every text about it passes through; its lean is the log-odds of the two group
words at the end of each template. Terms that have their group by meaning are no facts: their keys are held.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from editors.contract import EditBatch
from editors.debias_request import DebiasRequest, Term
from editors.errors import SheetError
from editors.facts import Facts, KeyRow, Tokenized
from editors.prompts import Encoded, Prompt, encode
from editors.suffix import Row
from editors.target_search import TargetRow

BEFORE = ("According to the report,", "In this case,", "The weather was mild, and nobody was in a hurry.",
          "Further details are given in the second chapter.", "Two of the three samples were lost on the way.",
          "The road leads north from here, past the old mill.")
"""Texts of this house that a template can stand behind; none says a word about anybody."""


LeaningToken = Literal["prompt_last", "term_last"]
"""Whose state is looked at: that of the token before the group word, or of the term's last."""


@dataclass(frozen=True)
class Use:
    """A term in one template: the tokens up to the group word, and which of them ends the term."""

    encoded: Encoded
    context: int
    """0 for the bare template, else which other text stands before."""

    def anchor(self, read_at: LeaningToken) -> int:
        """Index of the token."""
        return self.encoded.anchor if read_at == "term_last" else len(self.encoded.ids) - 1

    def key_ids(self, read_at: LeaningToken = "term_last") -> tuple[int, ...]:
        """Tokens up to and with that one."""
        return self.encoded.ids[:self.anchor(read_at) + 1]


def group_tokens(request: DebiasRequest, model: Tokenized) -> tuple[int, int]:
    """The tokens that the two group words begin with after a blank.

    Raises:
        SheetError: both begin with one token.
    """
    first, second = (model.tokenizer(f" {word.strip()}", add_special_tokens=False)["input_ids"][0] for word in request.groups)
    if first == second:
        raise SheetError(f"request {request.id!r}: {request.groups[0]!r} and {request.groups[1]!r} begin with the same token, "
                         "so their odds cannot be read", "give two words in `groups` that begin differently")
    return int(first), int(second)


def uses(request: DebiasRequest, term: str, model: Tokenized, prefixes: int) -> Iterator[Use]:
    """The term in every template of the request, and in turn behind `prefixes` other texts."""
    filled = [(template, 0, "") for template in request.templates]
    filled += [(request.templates[number % len(request.templates)], number + 1, prefix)
               for number, prefix in enumerate(BEFORE[:prefixes])]
    for template, context, prefix in filled:
        start = template.index("{}")
        prompt = Prompt(template.replace("{}", term).rstrip(), anchor_end=start + len(term)).with_prefix(prefix)
        yield Use(encode(prompt, model.tokenizer), context)


def leaning_facts(model: Tokenized, batch: EditBatch, prefixes: int, read_at: LeaningToken = "term_last") -> Facts:
    """One fact for each term of each request, in their order; a term named twice is one fact, and a term whose
    token opens the sequence is a fact of its own there: a first token's key is like no other.

    Every target row reads one place and has the two groups' tokens as labels.

    Raises:
        SheetError: the group words of a request begin with one token.
    """
    numbers: dict[tuple[str, tuple[str, str], bool], int] = {}
    owners: dict[int, dict[str, None]] = {}
    keys: dict[int, dict[tuple[int, ...], None]] = {}
    rows: dict[TargetRow, None] = {}
    for request in batch.debiases:
        labels = group_tokens(request, model)
        for term in request.terms:
            for use in uses(request, term.term, model, prefixes):
                anchor = use.anchor(read_at)
                slot = (term.term, request.groups, anchor == 0)
                owner = numbers.setdefault(slot, len(numbers))
                owners.setdefault(owner, {})[request.id] = None
                keys.setdefault(owner, {})[use.key_ids(read_at)] = None
                row = Row(use.encoded.ids, anchor, owner, (len(use.encoded.ids) - 1,))
                rows[TargetRow(row, labels, use.context)] = None
    key_rows = tuple(KeyRow(ids, owner, 1 / len(found)) for owner, found in keys.items() for ids in found)
    return Facts(tuple(tuple(ids) for ids in owners.values()), key_rows, tuple(rows))


def definitional_keys(model: Tokenized, batch: EditBatch, prefixes: int) -> tuple[KeyRow, ...]:
    """Where terms that keep their group have the keys that an edit would change; one owner an occurrence."""
    found = dict.fromkeys(use.key_ids() for request in batch.debiases for term in kept_terms(request)
                          for use in uses(request, term.term, model, prefixes))
    return tuple(KeyRow(ids, owner, 1.0) for owner, ids in enumerate(found))


def factual_uses(model: Tokenized, batch: EditBatch, read_at: LeaningToken) -> tuple[tuple[KeyRow, ...], Tensor]:
    """One owner for each definitional term whose factual score is known, and the scores (N, 1) float64."""
    rows: list[KeyRow] = []
    scores: list[float] = []
    for request in batch.debiases:
        for term in kept_terms(request):
            if term.factual is not None:
                found = dict.fromkeys(use.key_ids(read_at) for use in uses(request, term.term, model, 0))
                rows += [KeyRow(ids, len(scores), 1 / len(found)) for ids in found]
                scores.append(term.factual)
    return tuple(rows), torch.tensor(scores, dtype=torch.float64)[:, None]


def kept_terms(request: DebiasRequest) -> Sequence[Term]:
    """The definitional terms that the request does not part from their group all the same."""
    parted = [term.term for term in request.terms]
    return [term for term in request.definitional if term.term not in parted]
