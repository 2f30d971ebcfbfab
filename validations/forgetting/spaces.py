"""The values of a form as token sequences after one text, arranged by what they begin with.

A value is tokenised where it stands, after its text, as the secret is. Where every free character is a token of its own
(SmolLM2 splits digits) the sequences are a product of choices and need no list; where characters merge into tokens the
values are listed and sorted. Nothing here is ever printed: tokens are as private as the text.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, product
from typing import TYPE_CHECKING, Any, Protocol

from editors.secret_forms import Form
from validations.reading import Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRIED_AT_RANDOM = 64
"""Random values that must come out as the product says, beside every pair of neighbouring characters."""


@dataclass(frozen=True)
class Branch:
    """One token that may follow, where it leads (None: a value is complete), and how many values lie there."""

    token: int = field(repr=False)
    node: Any = field(repr=False)
    count: int


class Space(Protocol):
    """Values as a tree of tokens."""

    @property
    def prompt(self) -> Tokens:
        """The text and what all values begin with."""

    @property
    def root(self) -> Any:
        """The node before any choice."""

    @property
    def nodes(self) -> int:
        """How many different beginnings must be read, after the prompt, to know every value's probability."""

    def branches(self, node: Any) -> Sequence[Branch]:
        """What may follow."""


@dataclass(frozen=True)
class Product:
    """Each place has its own choices, whatever stands in the others. A node is the number of places behind it."""

    prompt: Tokens = field(repr=False)
    places: tuple[Tokens, ...] = field(repr=False)
    root: int = 0

    @property
    def nodes(self) -> int:
        """Beginnings of one place to all but one."""
        return sum(math.prod(len(place) for place in self.places[:depth]) for depth in range(1, len(self.places)))

    def branches(self, node: int) -> Sequence[Branch]:
        """The choices of the next place."""
        below = math.prod(len(place) for place in self.places[node + 1:])
        following = node + 1 if node + 1 < len(self.places) else None
        return [Branch(token, following, below) for token in self.places[node]]


@dataclass(frozen=True)
class Listed:
    """Sorted values, all of them or a sample. A node is (first, behind the last, tokens in common)."""

    prompt: Tokens = field(repr=False)
    values: tuple[Tokens, ...] = field(repr=False)

    @property
    def root(self) -> tuple[int, int, int]:
        """All values, nothing in common."""
        return 0, len(self.values), 0

    @property
    def nodes(self) -> int:
        """Different beginnings that are shorter than a value."""
        return len({value[:depth] for value in self.values for depth in range(1, len(value))})

    def branches(self, node: tuple[int, int, int]) -> Sequence[Branch]:
        """Values of the node, by their next token."""
        low, high, depth = node
        found, start = [], low
        for token, same in groupby(self.values[low:high], key=lambda value: value[depth]):
            end = start + len(list(same))
            whole = len(self.values[start]) == depth + 1
            found.append(Branch(token, None if whole else (start, end, depth + 1), end - start))
            start = end
        return found


@dataclass(frozen=True)
class Place:
    """Where values stand: after a text, for one tokenizer."""

    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    text: str = field(repr=False)

    def encode(self, values: Sequence[str]) -> list[Tokens]:
        """Tokens of text and value together, as `editors.secret_rows` has them."""
        text = self.text.rstrip()
        return [tuple(ids) for ids in self.tokenizer([f"{text} {value.strip()}" for value in values])["input_ids"]]

    def listed(self, values: Sequence[str]) -> Listed:
        """The space of the given values alone. A value whose tokens begin another's cannot be told from it by a tree."""
        whole = sorted(self.encode(values))
        shared = common(whole)
        return Listed(whole[0][:shared], tuple(ids[shared:] for ids in whole))

    def product(self, form: Form) -> Product | None:
        """The space of all values, or None where characters do not stay tokens of their own.

        Tokens that grow by merging neighbours (BPE) cannot merge in a whole value when no two neighbours ever merge, so
        every pair is tried, and some values at random for tokenizers of another kind.
        """
        base = "".join(choice[0] for choice in form.choices)
        [plain] = self.encode([base])
        options: dict[int, Tokens] = {}
        moved: list[int | None] = []
        for index, choice in enumerate(form.choices):
            found = swap(plain, self.encode([base[:index] + sign + base[index + 1:] for sign in choice]))
            if len(choice) > 1 and (found is None or found[0] in options):
                return None
            moved.append(found[0] if found else None)
            options |= dict([found]) if found else {}
        for trials in _trials(form):
            expected = [_moved(plain, moved, options, trial) for trial in trials]
            values = ["".join(map(str.__getitem__, form.choices, trial)) for trial in trials]
            if self.encode(values) != expected:
                return None
        start = min(options)
        return Product(plain[:start], tuple(options.get(index, (plain[index],)) for index in range(start, len(plain))))


def swap(plain: Tokens, others: Sequence[Tokens]) -> tuple[int, Tokens] | None:
    """The one position at which the others differ from `plain`, and their tokens there; None where it is not one."""
    if any(len(other) != len(plain) for other in others):
        return None
    places = {index for other in others for index, token in enumerate(other) if token != plain[index]}
    if len(places) != 1:
        return None
    [place] = places
    tokens = tuple(other[place] for other in others)
    return (place, tokens) if len(set(tokens)) == len(tokens) else None


def common(sequences: Sequence[Tokens]) -> int:
    """Tokens that all begin with, leaving each one of its own; `sequences` is sorted."""
    first, last = sequences[0], sequences[-1]
    limit = min(map(len, sequences)) - 1
    return next((index for index in range(limit) if first[index] != last[index]), limit)


def _moved(plain: Tokens, moved: Sequence[int | None], options: Mapping[int, Tokens], trial: Sequence[int]) -> Tokens:
    """What a value should be: `plain` with each place's choice where that place's token stands."""
    ids = list(plain)
    for place, sign in zip(moved, trial, strict=True):
        if place is not None:
            ids[place] = options[place][sign]
    return tuple(ids)


def _trials(form: Form) -> Iterator[list[tuple[int, ...]]]:
    """Values by the number of each place's choice: every pair of neighbours on the first value, and some at random."""
    sizes = [len(choice) for choice in form.choices]
    for index in range(len(sizes) - 1):
        yield [(0,) * index + pair + (0,) * (len(sizes) - index - 2)
               for pair in product(range(sizes[index]), range(sizes[index + 1]))]
    draw = random.Random(0)  # noqa: S311  a check of a tokenizer
    yield [tuple(draw.randrange(size) for size in sizes) for _ in range(TRIED_AT_RANDOM)]
