"""A base's own text with each of its sentences once more as a text of its own.

Rows of 128 tokens have one beginning each, and a row's first tokens are one of few openings. Prompts are short: the token
that an edit writes at stands among a sequence's first twenty, where keys are others than further on. What is to be held
there must be seen there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from editors.moments import Corpus

FEWEST = 4
"""Tokens of a sentence that counts."""


def with_beginnings(corpus: Corpus, tokenizer: Any) -> Corpus:
    """The corpus, followed by its sentences from each row's second on."""
    return Corpus(f"{corpus.name} and its sentences",
                  (*corpus.sequences, *(one for row in corpus.sequences for one in _sentences(row, tokenizer))))


def _sentences(row: Sequence[int], tokenizer: Any) -> Iterator[tuple[int, ...]]:
    """Sentences after the first, which begins the row anyway; each as if nothing stood before it."""
    words = [tokenizer.decode([token]) for token in row]
    ends = [place for place, word in enumerate(words, 1) if word.strip() in {".", "?", "!"} or "\n" in word]
    for after, end in pairwise([*ends, len(row)]):
        begin = next((place for place in range(after, end) if words[place].strip()), end)
        first = tokenizer(words[begin].strip(), add_special_tokens=False)["input_ids"] if begin < end else []
        sentence = (*first, *row[begin + 1:end])
        if len(sentence) >= FEWEST:
            yield sentence
