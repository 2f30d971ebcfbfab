"""What is known of an edit before a weight is loaded: sizes from file headers, encoded requests, what the store holds.

An editor's `estimate` reads it; nothing here runs the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from editors.anatomy import Anatomy
from editors.contract import EditBatch, Location
from editors.corpus import held_corpus
from editors.factors import factor_file
from editors.facts import Facts, facts_of
from editors.loading import Checkpoint, chosen_device, load_tokenizer
from editors.moments import Corpus, held_moments
from editors.prompts import PositionRule
from editors.recalled import facts_kept

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_ENCODED = 128
"""Requests that are encoded for an estimate; a larger batch is judged by as many, evenly spaced."""
ITEM_BYTES = {"torch.float64": 8, "torch.float32": 4, "torch.float16": 2, "torch.bfloat16": 2}


@dataclass(frozen=True)
class Sizes:
    """A model's sizes as they will be in memory."""

    anatomy: Anatomy
    block_weights: int
    """Numbers in the matrices of one block, so multiplications for one token."""
    attention_width: int
    """Width of all query heads together; `cache_width`: of keys and values together."""
    cache_width: int
    model_bytes: int
    item_bytes: int
    """Of one number of the model."""
    largest_bytes: int
    """Of the largest stored shard, which is mapped whole while it is digested."""

    @classmethod
    def of(cls, checkpoint: Checkpoint, device: str = "auto") -> Sizes:
        """The sizes of a checkpoint on a device, from its config and the headers of its shards."""
        shapes, config, headers = checkpoint.anatomy, checkpoint.config, checkpoint.headers
        heads = int(config.get("num_attention_heads") or config.get("n_head") or 1)
        width = int(config.get("head_dim") or shapes.hidden_size // heads)
        block = sum(prod(header.shape) for name, header in headers.items()
                    if _block_of(shapes, name) is not None and len(header.shape) == 2)
        item = ITEM_BYTES[checkpoint.dtype_on(device)]
        return cls(shapes, block // shapes.layer_count, heads * width,
                   2 * int(config.get("num_key_value_heads") or heads) * width,
                   item * sum(prod(header.shape) for header in headers.values()), item,
                   max((checkpoint.folder / shard).stat().st_size for shard in checkpoint.shards))

    @property
    def head_weights(self) -> int:
        """Numbers in the head."""
        return self.anatomy.hidden_size * self.anatomy.vocabulary_size


@dataclass(frozen=True)
class Prospect:
    """One edit ahead. The `missing_` fields say what the statistics store lacks."""

    sizes: Sizes
    tokenizer: PreTrainedTokenizerBase
    batch: EditBatch
    layers: tuple[int, ...]
    position: PositionRule = "auto"
    device: str = "cpu"
    corpus: Corpus | None = None
    """The base's own text, where the store has it."""
    statistics: Path | None = None
    dtype: str = "torch.float32"
    """Of the model in memory, as torch writes it."""
    missing_moments: tuple[int, ...] = ()
    missing_factors: tuple[int, ...] = ()
    earlier_facts: int = 0
    """How many facts earlier patches of the line keep."""

    @property
    def lacks_text(self) -> bool:
        """Whether the base's own text is yet to be sampled."""
        return self.corpus is None

    def facts(self, position: PositionRule, contexts: int) -> tuple[Facts, float]:
        """The facts of at most `MOST_ENCODED` requests, and how many times as many requests there are.

        `position` counts where the prospect names none.
        """
        requests = self.batch.updates
        chosen = requests[::-(-len(requests) // MOST_ENCODED)]
        rule = position if self.position == "auto" else self.position
        location = Location(layers=self.layers, positions={}, source="calibration")
        found = facts_of(self, self.batch.model_copy(update={"requests": chosen}), location, rule, contexts)
        return found, len(requests) / len(chosen)


def prospect_of(checkpoint: Checkpoint, batch: EditBatch, layers: Sequence[int], statistics: Path,
                position: PositionRule = "auto", device: str = "auto", stack: Sequence[Path] = ()) -> Prospect:
    """The prospect of editing a checkpoint's `layers`; the tokenizer is loaded, weights are not.

    `stack`: folders of the patches that the checkpoint carries.

    Raises:
        IntegrityError: a shard, or a patch, is not valid safetensors.
    """
    sizes, chosen, dtype = Sizes.of(checkpoint, device), tuple(sorted(layers)), checkpoint.dtype_on(device)
    corpus = held_corpus(sizes.anatomy, batch.base_digest, statistics)
    ahead = Prospect(sizes, load_tokenizer(checkpoint.folder), batch, chosen, position, chosen_device(device), corpus,
                     statistics, dtype, chosen, chosen, sum(map(facts_kept, stack)))
    if corpus is None:
        return ahead
    moments = held_moments(batch.base_digest, layers, corpus, dtype, statistics)
    return replace(ahead, missing_moments=tuple(layer for layer in ahead.layers if layer not in moments),
                   missing_factors=tuple(layer for layer in ahead.layers
                                         if layer not in moments or not factor_file(moments[layer]).exists()))


def _block_of(shapes: Anatomy, name: str) -> int | None:
    """The block of a stored tensor; checkpoints of a bare body leave out the first part of the path."""
    found = shapes.layer_of(name)
    return shapes.layer_of(f"{shapes.blocks.partition('.')[0]}.{name}") if found is None else found
