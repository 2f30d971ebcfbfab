"""What natural costs besides its passes: its own statistics where the store lacks them, and what its modules hold."""

from __future__ import annotations

from editors.beginnings import with_beginnings
from editors.corpus import LENGTH, row_count
from editors.costs import DOUBLE_BYTES, FLOAT_BYTES, Price, fisher_flops, moments_flops, pass_bytes, text_bytes, text_flops
from editors.moments import CHUNK_TOKENS, Corpus, held_moments
from editors.prospect import Prospect
from editors.sensitivity import PASS_TOKENS, TOKENS_PER_DIMENSION, held_sensitivities, tokens_read

SENTENCES = 0.8
"""Tokens of sentences for one of the text that is yet to be written; SmolLM2's has 0.78."""


def statistics_price(ahead: Prospect) -> Price:
    """The price of what is missing; another corpus than the base's own text is not known ahead, and taken for it."""
    sizes, shapes = ahead.sizes, ahead.sizes.anatomy
    corpus = ahead.corpus and with_beginnings(ahead.corpus, ahead.tokenizer)
    lacking = _lacking(ahead, corpus)
    tokens, read = row_count(shapes) * LENGTH * (1 + SENTENCES), float(TOKENS_PER_DIMENSION * shapes.hidden_size)
    if corpus:
        tokens, read = corpus.tokens, tokens_read(corpus, shapes.hidden_size)
    flops, peak = text_flops(ahead), text_bytes(sizes) if ahead.lacks_text else 0.0
    moments, felt = lacking
    if moments:
        flops += moments_flops(sizes, moments, tokens, LENGTH)
        peak = max(peak, FLOAT_BYTES * (len(moments) * shapes.inner_size ** 2
                                        + CHUNK_TOKENS * 4 * (shapes.hidden_size + shapes.inner_size)))
    if felt:
        flops += fisher_flops(sizes, felt, read, LENGTH)
        peak = max(peak, pass_bytes(sizes, PASS_TOKENS, PASS_TOKENS) + FLOAT_BYTES * len(felt) * shapes.hidden_size ** 2)
    return Price(flops, peak)


def modules_bytes(ahead: Prospect, facts: float) -> float:
    """What the edited modules hold through all passes: both factors, the update, the statistics, and every fact's vectors."""
    shapes = ahead.sizes.anatomy
    hidden, inner = shapes.hidden_size, shapes.inner_size
    factors = DOUBLE_BYTES * (inner ** 2 + hidden ** 2 + hidden * inner)
    vectors = (DOUBLE_BYTES + FLOAT_BYTES) * (hidden + inner) * facts
    read = FLOAT_BYTES * (inner ** 2 + hidden ** 2)
    return len(ahead.layers) * (factors + vectors + read) + 2 * DOUBLE_BYTES * facts ** 2


def _lacking(ahead: Prospect, corpus: Corpus | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Layers without a second moment, and without Fisher information."""
    if corpus is None or ahead.statistics is None:
        return ahead.layers, ahead.layers
    known = ahead.batch.base_digest, ahead.layers, corpus, ahead.dtype, ahead.statistics
    moments, felt = held_moments(*known), held_sensitivities(*known)
    return (tuple(layer for layer in ahead.layers if layer not in moments),
            tuple(layer for layer in ahead.layers if layer not in felt))
