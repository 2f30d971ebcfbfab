"""What soften costs: one gradient of every text by all maps, second moments that the store lacks, and the measuring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from editors.corpus import LENGTH, row_count
from editors.costs import (
    DOUBLE_BYTES,
    FLOAT_BYTES,
    Price,
    fisher_flops,
    moments_flops,
    pass_bytes,
    pass_flops,
    text_bytes,
    text_flops,
)
from editors.linear_maps import LinearMap, Vector, maps_of
from editors.moments import CHUNK_TOKENS, Site, held_sites
from editors.prospect import Prospect, Sizes

TYPICAL_TRIES = 5
"""Lengths that are tried, on the average."""


@dataclass(frozen=True)
class TextTokens:
    """How many tokens there are of each kind of text; `groups`: texts whose gradients stand side by side."""

    contrasted: int
    held: int
    measured: int
    own: int
    groups: int
    budget: int


def soften_price(ahead: Prospect, tokens: TextTokens) -> Price:
    """The price of a plan."""
    sizes, maps = ahead.sizes, maps_of(ahead.sizes.anatomy, ahead.layers)
    known, peak = _statistics(ahead, maps)
    seen = tokens.contrasted + tokens.held
    weights = sum(_size(sizes, one) for one in maps)
    passes = fisher_flops(sizes, ahead.layers, seen + tokens.own, LENGTH / 4) + 2 * weights * seen
    read = pass_flops(sizes, tokens.measured + tokens.own, LENGTH // 4, tokens.measured + tokens.own)
    harmless = _reading(sizes, [(one.layer, one.vector) for one in maps], tokens.held)
    solving = sum(2 * _width(sizes, one.vector) ** 3 / 3 + (tokens.groups + 1) * _size(sizes, one) * _width(sizes, one.vector)
                  for one in maps)
    squares = FLOAT_BYTES * sum(_width(sizes, vector) ** 2 for _, vector in {(one.layer, one.vector) for one in maps})
    held = FLOAT_BYTES * tokens.groups * weights + squares
    whitening = DOUBLE_BYTES * (tokens.groups + 3) * max(_size(sizes, one) for one in maps)
    return Price(known + passes + harmless + solving + (1 + TYPICAL_TRIES) * read,
                 max(peak, held + max(pass_bytes(sizes, tokens.budget, tokens.budget), whitening)))


def _statistics(ahead: Prospect, maps: Sequence[LinearMap]) -> tuple[float, float]:
    """Operations and bytes of what the store lacks."""
    sizes, sites = ahead.sizes, list(dict.fromkeys((one.layer, one.vector) for one in maps))
    if ahead.corpus and ahead.statistics:
        known = held_sites(ahead.batch.base_digest, sites, ahead.corpus, ahead.dtype, ahead.statistics)
        sites = [site for site in sites if site not in known]
    if not sites:
        return 0.0, 0.0
    tokens = ahead.corpus.tokens if ahead.corpus else row_count(sizes.anatomy) * LENGTH
    squares = FLOAT_BYTES * sum(_width(sizes, vector) ** 2 for _, vector in sites)
    passing = FLOAT_BYTES * CHUNK_TOKENS * 4 * (sizes.anatomy.hidden_size + sizes.anatomy.inner_size)
    sampling = text_bytes(sizes) if ahead.lacks_text else 0.0
    return text_flops(ahead) + _reading(sizes, sites, tokens), max(sampling, squares + passing)


def _reading(sizes: Sizes, sites: Sequence[Site], tokens: int) -> float:
    """Operations of the second moments of some vectors, of so many tokens."""
    run = moments_flops(sizes, [layer for layer, _ in sites], tokens, LENGTH)
    own = sum(_width(sizes, vector) ** 2 - sizes.anatomy.inner_size ** 2 for _, vector in sites)
    return run + 2 * tokens * own


def _width(sizes: Sizes, vector: Vector) -> int:
    shapes = sizes.anatomy
    return {"heads": sizes.attention_width, "ffn": shapes.hidden_size, "key": shapes.inner_size}[vector]


def _size(sizes: Sizes, one: LinearMap) -> int:
    """Numbers in a map's matrix; those into the FFN share what a block has besides attention and the FFN's output."""
    shapes, own = sizes.anatomy, sizes.anatomy.hidden_size * _width(sizes, one.vector)
    if one.vector != "ffn":
        return own
    attention = shapes.hidden_size * (2 * sizes.attention_width + sizes.cache_width)
    return (sizes.block_weights - attention - shapes.hidden_size * shapes.inner_size) // len(shapes.mlp_inputs)
