"""What an edit will cost, from shapes and encoded lengths alone: bytes, floating-point operations, seconds.

An editor says what it will do (`Work`); the price of it is worked out here. A multiplication and an addition are two
operations. Weights are constant in a search, so a step costs a row one product forward and one backward.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch

from editors.contract import Estimate
from editors.corpus import LENGTH, ROWS_AT_ONCE, row_count
from editors.facts import Facts, KeyRow
from editors.keys import hosted
from editors.moments import CHUNK_TOKENS
from editors.prefix import PASS_TOKENS, stem_lengths
from editors.prompts import PositionRule
from editors.prospect import Prospect, Sizes
from editors.suffix import CLEAN_TOKENS, grouped
from editors.target_search import OWNER_TOKENS

FLOAT_BYTES, DOUBLE_BYTES = 4, 8
SDPA_BACKWARD = 2.5
"""Products in the backward of attention against those of its forward."""
TYPICAL_PASSES = 8.0
"""Passes after which a target search has stopped, on the average (SmolLM2, CounterFact); fewer where steps end it."""
CONTEXT_PASSES = 3.5
"""Those of them in which all contexts run, where the bare prompts are searched alone before."""
KEPT_WIDTHS = (12, 4)
"""Numbers that one token of one block leaves for the backward pass, in units of D and of F; fitted on SmolLM2."""
CACHE_COPIES = 2
"""Keys and values of a group of edits, and of the chunks that they are laid out in."""
LOGIT_COPIES = 8
"""Tensors of reads x vocabulary that are alive at once in the objective."""
WORKSPACE_BYTES = 40 << 20
"""What the process itself takes once it runs a model: allocator, threads, tokenizer."""


@dataclass(frozen=True)
class RowSize:
    """A sequence of a search: its tokens in all, from the edited one on, positions where it is read, and how often it
    runs forward and backward, on the average.
    """

    length: int
    own: int
    """Those of its tokens that no other row begins with."""
    suffix: int
    reads: int
    passes: float


@dataclass(frozen=True)
class Work:
    """What an editor will do; what it leaves at its default it does not do."""

    layers: tuple[int, ...]
    facts: int
    token_budget: int
    search: tuple[RowSize, ...] = ()
    keys: tuple[int, ...] = ()
    """Lengths of the rows whose keys are read, up to the edited token."""
    kept_keys: tuple[int, ...] = ()
    """The same for keys that are held, and read at their own layer only; those that begin another are read in its run."""
    kept: int = 0
    """How many keys are read in those."""
    scale: float = 1.0
    """How many times as much there is of the rows above."""
    uses_moments: bool = True
    held: int = 0
    """Keys of earlier edits, which are held as they were written."""


@dataclass(frozen=True)
class Price:
    """Of one stage: operations, and bytes that it holds at once beside the model."""

    flops: float
    peak_bytes: float


def work_of(facts: Facts, scale: float, layers: Sequence[int], steps: int, token_budget: int,
            kept: Sequence[KeyRow] = ()) -> Work:
    """The work of an editor that searches targets, reads keys layer by layer and writes them by the closed form."""
    rows = [(max(target.row.reads, default=target.row.anchor) + 1, target) for target in facts.targets]
    bare = scale * sum(length - target.row.anchor for length, target in rows if target.context == 0)
    in_stages = bare > PASS_TOKENS and any(target.context for _, target in rows)
    passes = min(TYPICAL_PASSES, steps + in_stages)
    later = min(CONTEXT_PASSES, steps // 2 + 1) if in_stages else passes
    stems = stem_lengths([(target.row.ids, target.row.anchor) for target in facts.targets])
    search = tuple(RowSize(length, length - stem, length - target.row.anchor, len(target.row.reads),
                           later if target.context else passes)
                   for (length, target), stem in zip(rows, stems, strict=True))
    return Work(tuple(sorted(layers)), round(scale * facts.count), token_budget, search,
                tuple(sorted(map(len, hosted(facts.keys)))), tuple(map(len, hosted(kept))), len(kept), scale)


def estimate_of(ahead: Prospect, work: Work, own: Price | None = None) -> Estimate:
    """The cost of what the statistics store lacks, of the search and of the writing; `own`: of a method's own statistics."""
    sizes, stages = ahead.sizes, [*stages_of(ahead, work).values(), *([own] if own else ())]
    flops, peak = sum(one.flops for one in stages), max(one.peak_bytes for one in stages)
    memory = max(sizes.model_bytes + peak, sizes.largest_bytes) + (WORKSPACE_BYTES if ahead.device == "cpu" else 0)
    return Estimate(memory_bytes=round(memory), flops=round(flops), seconds=flops / arithmetic_rate())


def stages_of(ahead: Prospect, work: Work) -> dict[str, Price]:
    """The price of each stage, in order: `statistics` that the store lacks, `search`, `reading` of keys, `solving`."""
    sizes = ahead.sizes
    return {"statistics": Price(_statistics_flops(ahead, work), _statistics_bytes(ahead, work)),
            "search": Price(work.scale * _search_flops(sizes, work), _search_bytes(sizes, work)),
            "reading": Price(_reading_flops(sizes, work), _writing_bytes(sizes, work)),
            "solving": Price(_solving_flops(sizes, work), _writing_bytes(sizes, work))}


def gradient_estimate(ahead: Prospect, position: PositionRule, contexts: int, passes: int, token_budget: int,
                      times: float = 1.0, own: Price | None = None) -> Estimate:
    """The cost of a method that reads gradients of all layers from its lowest on, as if every pass were made.

    `times`: how many times the batch's own facts, where earlier ones are read as well. `own`: of the method's own
    statistics, where it does not use those of the store.
    """
    facts, scale = ahead.facts(position, contexts)
    scale *= times
    lengths = [max(target.row.reads) + 1 for target in facts.targets if target.labels]
    reads = [len(target.row.reads) for target in facts.targets if target.labels]
    search = tuple(RowSize(length, length, length, count, passes) for length, count in zip(lengths, reads, strict=True))
    work = Work((min(ahead.layers),), round(scale * facts.count), token_budget, search, scale=scale, uses_moments=own is None)
    return estimate_of(ahead, work, own)


@cache
def arithmetic_rate() -> float:
    """Float32 operations a second of this process on the CPU, measured once on a product of FFN-like shape."""
    left, right = torch.ones(512, 576), torch.ones(576, 1536)
    torch.mm(left, right)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < 0.05:
        torch.mm(left, right)
        count += 1
    return count * 2 * 512 * 576 * 1536 / (time.perf_counter() - started)


def text_flops(ahead: Prospect) -> float:
    """Operations of sampling the base's own text; none where the store has it."""
    sizes = ahead.sizes
    block = 2 * sizes.block_weights + 4 * sizes.attention_width * LENGTH / 2
    tokens = row_count(sizes.anatomy) * (LENGTH - 1)
    return tokens * (sizes.anatomy.layer_count * block + 2 * sizes.head_weights) if ahead.lacks_text else 0.0


def text_bytes(sizes: Sizes) -> float:
    """What sampling the base's own text holds at once; a cache that grows is copied a layer at a time."""
    shapes, rows = sizes.anatomy, min(ROWS_AT_ONCE, row_count(sizes.anatomy))
    cached = rows * LENGTH * sizes.cache_width * sizes.item_bytes * (shapes.layer_count + 1)
    return cached + 3 * FLOAT_BYTES * rows * shapes.vocabulary_size


def pass_flops(sizes: Sizes, tokens: float, seen: int, reads: float) -> float:
    """Operations of a run through the whole model forward, of `tokens` that each see `seen`, with logits at `reads`."""
    return sizes.anatomy.layer_count * _forward(sizes, 1, seen) * tokens + 2 * sizes.head_weights * reads


def pass_bytes(sizes: Sizes, tokens: float, reads: float) -> float:
    """What a run of `tokens` leaves for its backward pass, with logits at `reads`."""
    kept = KEPT_WIDTHS[0] * sizes.anatomy.hidden_size + KEPT_WIDTHS[1] * sizes.anatomy.inner_size
    logits = LOGIT_COPIES * FLOAT_BYTES * sizes.anatomy.vocabulary_size * reads
    return sizes.anatomy.layer_count * tokens * kept * sizes.item_bytes + logits


def moments_flops(sizes: Sizes, layers: Sequence[int], tokens: float, seen: float) -> float:
    """Operations of reading so many tokens, in rows of `seen`, for the second moments of the layers."""
    return tokens * ((max(layers) + 1) * _forward(sizes, 1, seen) + 2 * sizes.anatomy.inner_size ** 2 * len(layers))


def fisher_flops(sizes: Sizes, layers: Sequence[int], tokens: float, seen: float) -> float:
    """Operations of one forward and one backward, from the lowest layer on, for the Fisher information of the layers."""
    shapes = sizes.anatomy
    blocks = (2 * shapes.layer_count - min(layers)) * _forward(sizes, 1, seen)
    return tokens * (blocks + 4 * sizes.head_weights + 2 * shapes.hidden_size ** 2 * len(layers))


def _statistics_flops(ahead: Prospect, work: Work) -> float:
    sizes, count = ahead.sizes, row_count(ahead.sizes.anatomy)
    shapes, flops = sizes.anatomy, 0.0
    if not work.uses_moments:
        return flops
    flops += text_flops(ahead)
    if ahead.missing_moments:
        flops += moments_flops(sizes, ahead.missing_moments, count * LENGTH, LENGTH)
    return flops + len(ahead.missing_factors) * shapes.inner_size ** 3 / 3


def _search_flops(sizes: Sizes, work: Work) -> float:
    shapes, flops, top = sizes.anatomy, 0.0, max(work.layers)
    above, budget = max(0, shapes.layer_count - 1 - top), CLEAN_TOKENS * work.token_budget
    for group in _groups(work, [row.length for row in work.search], budget):
        # the clean pass: whole up to the layer, and the tokens before the edited one above it
        own, seen = max(row.own for row in group), max(row.length for row in group)
        before = max(row.own - row.suffix for row in group)
        flops += len(group) * ((top + 1) * _forward(sizes, own, seen) + above * _forward(sizes, before, seen))
    for group in _groups(work, [row.suffix for row in work.search], work.token_budget):
        suffix, width = max(row.suffix for row in group), max(row.length for row in group)
        for row in group:
            step = above * 2 * sizes.block_weights * suffix + 2 * sizes.head_weights * row.reads
            attention = above * 4 * sizes.attention_width * suffix * width
            flops += row.passes * (2 * step + (1 + SDPA_BACKWARD) * attention)
    return flops


def _reading_flops(sizes: Sizes, work: Work) -> float:
    first, top = min(work.layers), max(work.layers)
    read = first + sum(top - layer + 1 for layer in work.layers) + top - first
    groups = grouped(range(len(work.keys)), work.keys, CLEAN_TOKENS * work.token_budget)
    widths = [max(work.keys[number] for number in group) for group in groups for _ in group]
    flops = work.scale * read * sum(_forward(sizes, width, width) for width in widths)
    return flops + (top + 1 + len(work.layers)) * sum(_forward(sizes, length, length) for length in work.kept_keys)


def _solving_flops(sizes: Sizes, work: Work) -> float:
    shapes, every = sizes.anatomy, work.facts + work.kept + work.held
    # the gram matrix and the solves by its factor are as large as the keys or as F, whichever is less
    small = min(every, shapes.inner_size)
    solve = shapes.inner_size * (shapes.inner_size + 2 * small) * (every + work.facts) + small ** 3 / 3
    return len(work.layers) * (solve + 2 * shapes.hidden_size * shapes.inner_size * work.facts)


def _statistics_bytes(ahead: Prospect, work: Work) -> float:
    sizes, shapes = ahead.sizes, ahead.sizes.anatomy
    sampling, moments, factors = text_bytes(sizes) if ahead.lacks_text else 0.0, 0.0, 0.0
    if not work.uses_moments:
        return 0.0
    square = shapes.inner_size ** 2
    if ahead.missing_moments:
        tokens = min(CHUNK_TOKENS, row_count(shapes) * LENGTH)
        passing = tokens * (4 * shapes.hidden_size + 4 * shapes.inner_size)
        moments = FLOAT_BYTES * (len(ahead.missing_moments) * square + passing)
    if ahead.missing_factors:
        factors = square * (FLOAT_BYTES + 3 * DOUBLE_BYTES)
    return max(sampling, moments, factors)


def _search_bytes(sizes: Sizes, work: Work) -> float:
    shapes, peak = sizes.anatomy, 0.0
    above = max(0, shapes.layer_count - 1 - max(work.layers))
    for group in _groups(work, [row.suffix for row in work.search], work.token_budget):
        width, suffix = max(row.length for row in group), max(row.suffix for row in group)
        kept = above * (suffix * (KEPT_WIDTHS[0] * shapes.hidden_size + KEPT_WIDTHS[1] * shapes.inner_size)
                        + 2 * width * sizes.attention_width)
        logits = LOGIT_COPIES * shapes.vocabulary_size * sum(row.reads for row in group)
        peak = max(peak, len(group) * kept * sizes.item_bytes + logits * FLOAT_BYTES)
    tokens = min(work.scale * sum(row.length for row in work.search), OWNER_TOKENS * work.token_budget)
    caches = CACHE_COPIES * tokens * sizes.cache_width * above * sizes.item_bytes
    return caches + min(work.scale, _most_groups(work)) * peak


def _writing_bytes(sizes: Sizes, work: Work) -> float:
    shapes = sizes.anatomy
    rows = [*work.keys] * max(1, round(work.scale)) + [*work.kept_keys]
    hidden = sizes.item_bytes * shapes.hidden_size * sum(rows)
    tokens = min(CLEAN_TOKENS * work.token_budget, sum(rows))
    passing = sizes.item_bytes * tokens * (4 * shapes.hidden_size + 4 * shapes.inner_size)
    factor = 2.5 * DOUBLE_BYTES * shapes.inner_size ** 2 if work.uses_moments else 0.0
    keys = 4 * DOUBLE_BYTES * shapes.inner_size * (work.facts + work.kept + work.held)
    matrix, factors = shapes.hidden_size * shapes.inner_size, shapes.hidden_size + shapes.inner_size
    written = len(work.layers) * (sizes.item_bytes * matrix + FLOAT_BYTES * work.facts * factors)
    return hidden + passing + factor + keys + written + 3 * DOUBLE_BYTES * matrix


def _forward(sizes: Sizes, tokens: float, seen: float) -> float:
    """Operations of one block on one row of `tokens`, each of which sees `seen`."""
    return tokens * (2 * sizes.block_weights + 4 * sizes.attention_width * seen)


def _groups(work: Work, widths: Sequence[int], budget: int) -> list[list[RowSize]]:
    """The rows of the search that run together: like widths, within the budget."""
    ordered = sorted(range(len(widths)), key=widths.__getitem__)
    return [[work.search[number] for number in group] for group in grouped(ordered, widths, budget)]


def _most_groups(work: Work) -> float:
    """How many times larger a group can become where there are more rows than were encoded."""
    groups = _groups(work, [row.suffix for row in work.search], work.token_budget)
    tokens = max((sum(row.suffix for row in group) for group in groups), default=1)
    return max(1.0, work.token_budget / tokens)
