"""What a million edits of a 70B model take, by the arithmetic of `editors/costs.py`; nothing is run.

The lengths of prompts are CounterFact's; the shapes are those that Llama 3.1 70B publishes. Each batch is a release: it is
searched, read, written and measured, and holds the keys of all batches before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

from editors.anatomy import anatomy_of
from editors.contract import EditBatch
from editors.costs import Price, Work, pass_flops, stages_of, work_of
from editors.moments import Corpus
from editors.prospect import Prospect, Sizes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONFIG: dict[str, Any] = {"model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
                          "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256}
"""Llama 3.1 70B, as its config.json has it."""
ITEM_BYTES = 2
"""bfloat16."""
EDITS = 1_000_000
BATCHES = (10_000, 100_000)
LAYERS, OF_LAYERS = (3, 4, 5, 6, 7), 30
"""Where MEMIT edits SmolLM2; the large model is edited at the same depths."""
CONTEXTS, STEPS = 3, 25
TOKEN_BUDGET = 1024
"""Of the search: above `Machine.balance`, so that a pass is not bound by reading weights."""
PROMPTS, PROMPT_TOKENS, ANSWER_TOKENS = 4, 16, 8
"""What a release is asked for each edit that holds: the prompt, a paraphrase and two neighbours."""
NO_TEXT = Corpus("own text", ())
"""Stands for a text that is there and costs nothing."""
NODE = 8
"""GPUs of one machine."""
MODELS_ASKED = 2
"""Parent and candidate."""


@dataclass(frozen=True)
class Machine:
    """One GPU: what its data sheet says, and the share of it that is assumed to be reached."""

    name: str
    memory_bytes: float
    flops: float
    double_flops: float
    bandwidth: float
    reached: float
    """Of `flops`, in passes of the model."""
    double_reached: float
    memory_used: float = 0.9

    @property
    def balance(self) -> float:
        """Tokens of a pass from which on arithmetic takes longer than reading 2-byte weights."""
        return self.flops / self.bandwidth


H100 = Machine("NVIDIA H100 SXM 80 GB", 80e9, 989e12, 67e12, 3.35e12, reached=0.4, double_reached=0.5)
"""NVIDIA's data sheet: dense bfloat16, float64 on tensor cores, HBM3. The shares are assumptions, not measured here."""


@dataclass(frozen=True)
class Plan:
    """All batches of one size. `stages`: GPU hours of each; bytes are those of the last batch, the largest."""

    batch: int
    gpus_a_worker: int
    stages: dict[str, float]
    """A worker's hours: a model split layer by layer keeps one of its GPUs busy at a time."""
    flops: dict[str, float]
    model_bytes: float
    search_bytes: float
    writing_bytes: float
    statistics_bytes: float
    patch_bytes: float
    """Of all batches' patches, with the keys that they remember."""
    most_solved: int
    """Keys, new and held, whose solve fits one GPU beside its share of a model that is split over `NODE`."""

    def hours(self, gpus: int) -> float:
        """From first to last, on so many GPUs: search and measuring are shared, the rest is one worker's."""
        workers = max(1, gpus // self.gpus_a_worker)
        return sum(hours / (workers if stage in SHARED else 1) for stage, hours in self.stages.items())


SHARED = ("search", "measuring")


def large_sizes() -> Sizes:
    """The 70B model's sizes on GPUs."""
    shapes = anatomy_of(CONFIG)
    head = shapes.hidden_size // CONFIG["num_attention_heads"]
    cache = 2 * CONFIG["num_key_value_heads"] * head
    block = shapes.hidden_size * (2 * shapes.hidden_size + cache + 3 * shapes.inner_size)
    weights = shapes.layer_count * block + 2 * shapes.hidden_size * shapes.vocabulary_size
    # one layer's largest matrix stands for the largest shard: nothing is mapped that is larger than the model
    return Sizes(shapes, block, shapes.hidden_size, cache, ITEM_BYTES * weights, ITEM_BYTES, ITEM_BYTES * block)


def prospect(sizes: Sizes, tokenizer: PreTrainedTokenizerBase, batch: EditBatch) -> Prospect:
    """The edit ahead, with a store that lacks everything."""
    layers = tuple(round(layer * sizes.anatomy.layer_count / OF_LAYERS) for layer in LAYERS)
    return Prospect(sizes, tokenizer, batch, layers, device="cuda", missing_moments=layers, missing_factors=layers)


def plan(ahead: Prospect, size: int, edits: int = EDITS, machine: Machine = H100) -> Plan:
    """What `edits` take in batches of `size`."""
    sizes, count = ahead.sizes, ceil(edits / size)
    facts, _ = ahead.facts("auto", CONTEXTS)
    work = work_of(facts, size / facts.count, ahead.layers, STEPS, TOKEN_BUDGET)
    warm = replace(ahead, corpus=NO_TEXT, missing_moments=(), missing_factors=())
    batches = [stages_of(warm, replace(work, held=number * size)) for number in range(count)]
    flops = {"statistics": stages_of(ahead, work)["statistics"].flops,
             **{stage: sum(one[stage].flops for one in batches) for stage in ("search", "reading", "solving")},
             "measuring": sum(_asked(sizes, size * (number + 1)) for number in range(count))}
    rates = {stage: machine.double_flops * machine.double_reached if stage == "solving" else machine.flops * machine.reached
             for stage in flops}
    held = sizes.model_bytes + batches[0]["search"].peak_bytes
    return Plan(size, ceil(held / (machine.memory_used * machine.memory_bytes)),
                {stage: flops[stage] / rates[stage] / 3600 for stage in flops}, flops, sizes.model_bytes,
                batches[0]["search"].peak_bytes, batches[-1]["solving"].peak_bytes, _statistics_bytes(sizes, work),
                _patch_bytes(sizes, work, size, count), _most_solved(warm, work, machine))


def _asked(sizes: Sizes, edits: int) -> float:
    """Operations of a release's questions: every edit that holds is asked again, of parent and candidate."""
    tokens = PROMPTS * (PROMPT_TOKENS + ANSWER_TOKENS)
    return MODELS_ASKED * edits * pass_flops(sizes, tokens, PROMPT_TOKENS + ANSWER_TOKENS, PROMPTS * ANSWER_TOKENS)


def _most_solved(warm: Prospect, work: Work, machine: Machine) -> int:
    """By the line through two prices: what a solve holds grows evenly with the keys; a batch of one, the others held."""
    one = replace(work, facts=1, scale=1 / len(work.search))
    none, some = (stages_of(warm, replace(one, held=held))["solving"].peak_bytes for held in (0, 1000))
    room = machine.memory_used * machine.memory_bytes - warm.sizes.model_bytes / NODE
    return max(0, int((room - none) / (some - none) * 1000))


def _statistics_bytes(sizes: Sizes, work: Work) -> float:
    """A float32 second moment, and half of its float64 factor, for each layer."""
    return len(work.layers) * 2 * 4 * sizes.anatomy.inner_size ** 2


def _patch_bytes(sizes: Sizes, work: Work, size: int, count: int) -> float:
    """Each layer's change as factors or as a matrix, whichever is smaller, and its keys; float32."""
    width, inner = sizes.anatomy.hidden_size, sizes.anatomy.inner_size
    return 4 * count * len(work.layers) * (min(size * (width + inner), width * inner) + size * inner)


def plans(ahead: Prospect, sizes: Sequence[int] = BATCHES) -> list[Plan]:
    """A plan for each size of batch."""
    return [plan(ahead, size) for size in sizes]


__all__ = ["H100", "Machine", "Plan", "Price", "large_sizes", "plan", "plans", "prospect"]
