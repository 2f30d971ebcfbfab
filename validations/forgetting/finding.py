"""One number about one request, and when an answer holds a secret. Texts come in; none goes out."""

from __future__ import annotations

import re
from itertools import pairwise

from validations.contract import Recorded

BETWEEN_DIGITS = r"[\W_]{0,3}"
"""Blanks and signs that may stand between two digits of a number, wherever they stand in the secret."""


class Finding(Recorded):
    """One number that one model shows, by one named protocol. It holds no text and no token."""

    request: str
    """Request id, or `-` where it belongs to the batch."""
    probe: str
    metric: str
    """`<probe>.<protocol>`."""
    prompt: str
    """A request's name of the text (`ForgetRequest.name_of`)."""
    value: float
    n: int = 1
    """How many elementary observations the value averages."""

    @property
    def key(self) -> tuple[str, str, str]:
        """The same for parent and candidate."""
        return self.request, self.metric, self.prompt


def pattern_of(secret: str) -> re.Pattern[str]:
    """What finds the secret in a text: case, blanks and the signs between digits do not matter, a word's beginning does.

    More letters or digits after it do not hide it.
    """
    core = re.sub(r"\s+", "", re.sub(r"(?<=\d)[\W_]+(?=\d)", "", secret.strip()))
    joined = core[:1] and re.escape(core[0])
    for left, right in pairwise(core):
        joined += (BETWEEN_DIGITS if left.isdigit() and right.isdigit() else r"\s*") + re.escape(right)
    border = r"(?<![^\W_])" if core[:1].isalnum() else ""
    return re.compile(border + joined, re.IGNORECASE)
