"""What hiding secrets by gradients of their texts will cost, from shapes and encoded lengths alone."""

from __future__ import annotations

from dataclasses import dataclass

from editors.contract import Estimate
from editors.costs import WORKSPACE_BYTES, arithmetic_rate, pass_bytes, pass_flops, text_bytes, text_flops
from editors.forget_aim import Aim
from editors.prospect import MOST_ENCODED, Prospect
from editors.secret_contrast import with_owners
from editors.token_tree import HEAD_READS, TREE_TOKENS, TokenTree

SEALED_TOKENS = 32
"""Tokens of a context with its secret where the text is not at hand."""
SEALED_GROWTH = 5
"""How many times as many the never-seen values make of them."""
GRADIENT_COPIES = 3
"""Factors, their gradient and the running sum of a text."""


@dataclass(frozen=True)
class ForgetWork:
    """What an editor will do; runs with gradient count twice."""

    gradient_passes: int
    """Over the texts of all contexts."""
    readings: int
    """Of the secrets among their controls."""
    controls: int
    ordinary_tokens: int
    namesakes: int
    """Invented people of each context."""
    gradient_tokens: int


def estimate_forget(ahead: Prospect, work: ForgetWork) -> Estimate:
    """Bytes, FLOPs and seconds."""
    sizes, (texts, trees, scale) = ahead.sizes, _encoded(ahead, work.controls)
    tokens, asked = sum(texts) * scale, sum(trees) * scale
    seen = max(texts, default=1)
    own = tokens + work.ordinary_tokens / max(work.gradient_passes, 1) + work.namesakes * tokens / max(work.gradient_passes, 1)
    flops = 2 * work.gradient_passes * pass_flops(sizes, own, seen, own / 2)
    flops += work.readings * (pass_flops(sizes, asked, max(trees, default=1), asked) +
                              pass_flops(sizes, work.ordinary_tokens / 2, seen, work.ordinary_tokens / 2))
    flops += work.namesakes * pass_flops(sizes, tokens, seen, tokens) + text_flops(ahead)
    count = len(texts) * scale * (1 + work.namesakes) + work.ordinary_tokens / SEALED_TOKENS
    gradients = 4 * GRADIENT_COPIES * count * sizes.anatomy.layer_count * sizes.anatomy.inner_size
    passing = max(pass_bytes(sizes, max(work.gradient_tokens, seen), HEAD_READS),
                  pass_bytes(sizes, max(TREE_TOKENS, max(trees, default=1)), HEAD_READS) / sizes.anatomy.layer_count)
    peak = max(gradients + passing, text_bytes(sizes) if ahead.lacks_text else 0.0)
    memory = max(sizes.model_bytes + peak, sizes.largest_bytes) + (WORKSPACE_BYTES if ahead.device == "cpu" else 0)
    return Estimate(memory_bytes=round(memory), flops=round(flops), seconds=flops / arithmetic_rate())


def _encoded(ahead: Prospect, controls: int) -> tuple[list[int], list[int], float]:
    """Tokens of each context's text and of its tree with controls, and how many times as many requests there are."""
    requests = ahead.batch.forgets
    if not requests:
        contexts = sum(getattr(request, "contexts", 1) for request in ahead.batch.requests)
        return [SEALED_TOKENS] * contexts, [SEALED_GROWTH * SEALED_TOKENS] * contexts, 1.0
    chosen = requests[::-(-len(requests) // MOST_ENCODED)]
    texts, _ = with_owners(chosen, ahead.tokenizer, 1)
    trees: tuple[TokenTree, ...] = Aim(chosen, ahead.tokenizer, controls).trees
    return [text.tree.size for text in texts], [tree.size for tree in trees], len(requests) / len(chosen)
