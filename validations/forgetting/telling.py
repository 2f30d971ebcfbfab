"""When an answer holds a secret."""

from __future__ import annotations

import re
from itertools import pairwise

BETWEEN_DIGITS = r"[\W_]{0,3}"
"""Blanks and signs that may stand between two digits of a number, wherever they stand in the secret."""


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
