"""Does the model still read ordinary text as well as before?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from editors.digest import digest_document
from validations.contract import Measurement
from validations.observation import Pairs, Question, Reply, Scope, Tokens, held_out_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PASSAGE_TOKENS = 128
"""A shorter piece would measure how the model begins more than how it reads."""


class Perplexity:
    """`perplexity.held_out`: exp of the mean loss per token, each token but a text's first scored once."""

    name: ClassVar[str] = "perplexity"

    def questions(self, scope: Scope, tokenizer: PreTrainedTokenizerBase) -> list[Question]:
        """The held-out texts, as windows of context and scored tokens."""
        texts = [text for text in scope.settings.held_out or held_out_texts() if text.strip()]
        encoded = [tuple(ids) for ids in tokenizer(texts)["input_ids"]]
        total = scope.settings.held_out_tokens
        capped = evenly_capped(spread(encoded, total), total)
        parts = [part for ids in capped if len(ids) > 1 for part in windows(ids, scope.settings.window_tokens)]
        return [Question(self.name, "-", "held_out", index, digest_document(context + scored), context,
                         {"text": (context, scored)}) for index, (context, scored) in enumerate(parts)]

    def rows(self, scope: Scope, pairs: Pairs) -> Iterator[Measurement]:  # noqa: ARG002 (every probe is called alike)
        """One row for all texts together."""
        if pairs:
            tokens = sum(len(parent.scores["text"].ids) for parent, _ in pairs)
            yield Measurement(request="-", probe=self.name, metric="perplexity.held_out",
                              prompt=digest_document([parent.prompt for parent, _ in pairs]),
                              parent=perplexity([parent for parent, _ in pairs]),
                              candidate=perplexity([candidate for _, candidate in pairs]), n=tokens)


def perplexity(replies: Sequence[Reply]) -> float:
    """The exponential of the mean negative log-likelihood over all tokens.

    Infinite where that overflows, NaN where a loss is.
    """
    scores = [reply.scores["text"] for reply in replies]
    loss = -math.fsum(score.mean * len(score.ids) for score in scores) / sum(len(score.ids) for score in scores)
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def spread(texts: Sequence[Tokens], total: int) -> list[Tokens]:
    """As many of the texts, evenly spaced, as can be read for `PASSAGE_TOKENS` each within `total`; at least one."""
    count = max(1, min(len(texts), total // PASSAGE_TOKENS))
    return [texts[place * len(texts) // count] for place in range(count)]


def evenly_capped(texts: Sequence[Tokens], total: int) -> list[Tokens]:
    """The beginnings of all texts, `total` tokens together; what short texts leave over goes to the longer ones."""
    kept: dict[int, Tokens] = {}
    left = total
    for done, index in enumerate(sorted(range(len(texts)), key=lambda index: (len(texts[index]), index))):
        kept[index] = texts[index][:left // (len(texts) - done)]
        left -= len(kept[index])
    return [kept[index] for index in range(len(texts))]


def windows(ids: Tokens, size: int) -> Iterator[tuple[Tokens, Tokens]]:
    """(context, scored) parts of a long text: each token but the first is scored once, with at most `size` - 1 before.

    After the first window each has half its size as context.
    """
    yield ids[:1], ids[1:size]
    half = size // 2
    for start in range(size, len(ids), size - half):
        yield ids[start - half:start], ids[start:start + size - half]
