"""The space that a secret is one of: its format, how many values have it, and never-seen values drawn from it.

Exposure is a rank in this space (Carlini et al. 2019, "The Secret Sharer", arXiv:1802.08232, definition 2 and eq. 1).
"""

from __future__ import annotations

import math
import random
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

from editors.errors import SheetError
from editors.forget_request import ForgetRequest

ALPHABETS = {"#": string.digits, "@": string.ascii_lowercase}
"""What a free character may be, by its sign in a form."""


@dataclass(frozen=True)
class Form:
    """A format; every value has one character of `choices[i]` in place i."""

    choices: tuple[str, ...] = field(repr=False)

    @property
    def size(self) -> int:
        """|R|, how many values have the format."""
        return math.prod(len(choice) for choice in self.choices)

    def values(self) -> Iterator[str]:
        """Every value, in order."""
        return map("".join, product(*self.choices))

    def holds(self, value: str) -> bool:
        """Whether a value has the format."""
        return len(value) == len(self.choices) and all(
            character in choice for character, choice in zip(value, self.choices, strict=True))

    def sample(self, count: int, seed: int, leaving_out: str = "") -> tuple[str, ...]:
        """At most `count` different values, drawn evenly; never `leaving_out`.

        A space that holds no more than that is given whole.
        """
        if self.size <= count + 1:
            return tuple(value for value in self.values() if value != leaving_out)
        draw, found = random.Random(seed), dict[str, None]()  # noqa: S311  never-seen values are no keys
        while len(found) < count:
            value = "".join(draw.choice(choice) for choice in self.choices)
            if value != leaving_out:
                found[value] = None
        return tuple(found)


def form_of(request: ForgetRequest) -> Form:
    """The request's form, or the one that its secret shows: digits free, or where it has none, letters.

    Raises:
        SheetError: the secret does not have the form given, or nothing in it is free; neither is quoted.
    """
    secret = request.secret.get_secret_value().strip()
    if request.form is None:
        free = str.isdigit if any(map(str.isdigit, secret)) else str.isalpha
        found = Form(tuple(_alphabet(character) if free(character) else character for character in secret))
    else:
        found = Form(tuple(ALPHABETS.get(sign, sign) for sign in request.form.get_secret_value().strip()))
    if not found.holds(secret):
        raise SheetError(f"request {request.id!r}: the secret does not have the form given",
                         "write `#` for each free digit, `@` for each free lower-case letter, the rest as in the secret")
    if found.size < 2:
        raise SheetError(f"request {request.id!r}: nothing in its form is free, so no value can stand beside the secret",
                         "write `#` or `@` in the places that differ from person to person")
    return found


def _alphabet(character: str) -> str:
    if character.isdigit():
        return string.digits
    alphabet = string.ascii_uppercase if character.isupper() else string.ascii_lowercase
    # a letter of another script stands for itself: nothing is known of its alphabet
    return alphabet if character in alphabet else character
