"""The blocks of a decoder, called one by one with exactly the arguments that the model itself gives them.

A model's body is called once with every block replaced by a recorder. The recorder keeps what the body prepared for
that block (rotary tables, masks, cache) and computes nothing; afterwards any stretch of blocks can be run from any
hidden state. Families differ only in what they pass, so none of them is named here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from editors.loading import LoadedModel


@dataclass(frozen=True)
class Batch:
    """Token sequences, right-padded. ids: (B, T) int64; lengths: (B,) int64."""

    ids: Tensor
    lengths: Tensor

    @property
    def valid(self) -> Tensor:
        """(B, T) bool: true on tokens, false on padding."""
        return torch.arange(self.ids.shape[1], device=self.ids.device)[None] < self.lengths[:, None]


def pad(rows: Sequence[Sequence[int]], device: torch.device) -> Batch:
    """The rows as one right-padded batch; padding is token 0, which no causal token before it can see."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
    return Batch(ids, torch.tensor([len(row) for row in rows], device=device))


class Walk:
    """One prepared batch, ready to be carried through any stretch of blocks.

    `entry` is the input of block 0, (B, T, D).
    """

    def __init__(self, model: LoadedModel, **body_arguments: Any) -> None:
        self.blocks = _blocks(model)
        body = model.model.get_submodule(model.anatomy.body)
        self._calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        with torch.no_grad(), _recorded(self.blocks, self._calls):
            body(**body_arguments)
        self.entry: Tensor = self._calls[0][0][0]

    def run(self, hidden: Tensor, first: int, last: int) -> Tensor:
        """The output of block `last`, given the input of block `first`; (B, T, D) both."""
        for layer in range(first, last + 1):
            arguments, keywords = self._calls[layer]
            output = self.blocks[layer](hidden, *arguments[1:], **keywords)
            hidden = output if isinstance(output, Tensor) else output[0]
        return hidden


def prefill(model: LoadedModel, batch: Batch) -> Walk:
    """A walk over whole right-padded sequences without a cache."""
    return Walk(model, input_ids=batch.ids, attention_mask=batch.valid.long(), use_cache=False)


@contextmanager
def captured_input(module: torch.nn.Module) -> Iterator[list[Tensor]]:
    """Inside the block, every input of `module` is appended to the list."""
    found: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, arguments: found.append(arguments[0].detach()))
    try:
        yield found
    finally:
        handle.remove()


def _blocks(model: LoadedModel) -> list[torch.nn.Module]:
    return [model.model.get_submodule(model.anatomy.block_path(layer)) for layer in range(model.anatomy.layer_count)]


@contextmanager
def _recorded(blocks: Sequence[torch.nn.Module], calls: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> Iterator[None]:
    def recorder(hidden: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        calls.append(((hidden, *arguments), keywords))
        return hidden

    # An attribute on the instance shadows the class's forward and leaves every other attribute that the body reads
    for block in blocks:
        block.forward = recorder
    try:
        yield
    finally:
        for block in blocks:
            del block.forward
