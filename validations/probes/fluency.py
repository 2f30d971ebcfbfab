"""Is free text after the edited prompts as varied as before, or does the model loop?"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from validations.answers import row
from validations.contract import Measurement
from validations.observation import Pairs, Question, Scope
from validations.questions import Asker, Wording

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WORD = re.compile(r"[\u2e80-\U0002ffff]|\w+|[^\w\s]")
"""A word, a punctuation mark, or one character of a script without spaces."""
ENTROPY_WEIGHTS = {2: 2 / 3, 3: 4 / 3}


class Fluency:
    """`fluency.ngram_entropy` (bits) and `fluency.repetition` (share of 3-grams that came before).

    The text is drawn from the five likeliest tokens with a seed made from the prompt, and goes on past end tokens, so
    that a short right answer is not mistaken for poverty.
    """

    name: ClassVar[str] = "fluency"

    def questions(self, scope: Scope, tokenizer: PreTrainedTokenizerBase) -> list[Question]:
        """Each request's own prompt, to be gone on with."""
        asker = Asker(self.name, tokenizer, scope.settings)
        return [replace(asker.ask(Wording(request, "edit", 0, request.question)),
                        sampled_tokens=scope.settings.fluency_tokens) for request in scope.requests]

    def rows(self, scope: Scope, pairs: Pairs) -> Iterator[Measurement]:  # noqa: ARG002 (every probe is called alike)
        """Two rows a request."""
        for parent, candidate in pairs:
            before, after = WORD.findall(parent.sampled), WORD.findall(candidate.sampled)
            yield row("ngram_entropy", parent, ngram_entropy(before), ngram_entropy(after), len(after))
            yield row("repetition", parent, repetition(before), repetition(after), len(after))


def ngram_entropy(words: Sequence[str]) -> float:
    """Mean of the weighted entropies of 2-grams and 3-grams, in bits; 0 for a text too short to have any.

    Source: Meng et al. 2022, arXiv:2202.05262, section 3.3 (GE), with the weights 2/3 and 4/3 of its code.
    """
    return sum(weight * _entropy(_ngrams(words, n)) for n, weight in ENTROPY_WEIGHTS.items()) / len(ENTROPY_WEIGHTS)


def repetition(words: Sequence[str]) -> float:
    """Share of 3-grams that stood earlier in the text: 0 in varied prose, towards 1 in a loop or where there is none."""
    grams = _ngrams(words, 3)
    return 1 - len(set(grams)) / len(grams) if grams else 1.0


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[start:start + n]) for start in range(len(words) - n + 1)]


def _entropy(grams: Sequence[tuple[str, ...]]) -> float:
    return -math.fsum(count / len(grams) * math.log2(count / len(grams)) for count in Counter(grams).values())
