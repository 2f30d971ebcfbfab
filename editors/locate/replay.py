"""Running only what a restoration can change: later layers, later positions, the head at one place.

A decoder is causal. Restoring token t after block l leaves every earlier position and every earlier layer as it was, so
a replay calls the blocks directly from layer l on, on positions t.. only, against keys and values of the positions
before t that were stored once. Rows that start at different layers join one growing batch on its way up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import DynamicCache

from editors.blocks import Walk
from editors.loading import LoadedModel

Kind = Literal["state", "mlp", "attention", "mlp severed", "attention severed"]
CONTRIBUTIONS: tuple[Kind, ...] = ("mlp", "attention")
SEVERED: tuple[Kind, ...] = ("mlp severed", "attention severed")


@dataclass(frozen=True)
class Run:
    """One recorded run of R rows and T tokens, with L layers.

    `states`: (L + 1, R, T, D), the input of each block and then the output of the last. `contributions`: by kind,
    (L, R, T, D), what the module adds to the residual stream. `cache`: keys and values of every layer.
    """

    states: torch.Tensor
    contributions: Mapping[Kind, torch.Tensor]
    cache: DynamicCache


@dataclass(frozen=True)
class Restoration:
    """One cell of the trace: which values are put back at one token.

    "state" puts back the clean output of block `layer`; "mlp" and "attention" put back the module's clean output in the
    layers `first` to `stop` (exclusive) around it. "mlp severed" and "attention severed" put back the state as "state"
    does, and hold that module at the same token in every later layer to what it adds in the corrupted run.
    """

    kind: Kind
    layer: int
    first: int
    stop: int

    @property
    def module(self) -> Kind | None:
        """The module whose output is held in the layers `first` to `stop`; None for a state alone."""
        return next((module for module in CONTRIBUTIONS if self.kind.startswith(module)), None)

    @property
    def restores_state(self) -> bool:
        """Whether the output of block `layer` is put back."""
        return self.kind not in CONTRIBUTIONS

    @property
    def start(self) -> int:
        """The first block that has to be run again."""
        return self.layer + 1 if self.restores_state else self.first


def restoration(kind: Kind, layer: int, window: int, layer_count: int) -> Restoration:
    """The cell of `kind` at `layer`; a window is centred there and cut at both ends of the model."""
    if kind not in CONTRIBUTIONS:
        return Restoration(kind, layer, layer + 1, layer + 1 if kind == "state" else layer_count)
    return Restoration(kind, layer, max(0, layer - window // 2), min(layer_count, layer + (window + 1) // 2))


def contribution_path(model: LoadedModel, kind: Kind, layer: int) -> str:
    """Path of the module that makes the contribution `kind`."""
    return model.anatomy.mlp_path(layer) if kind == "mlp" else model.anatomy.attention_path(layer)


def answer_logits(model: LoadedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Next-token logits, float32 (R, V), from the last block's output at one position, (R, D)."""
    logits = model.model.get_output_embeddings()(model.model.get_submodule(model.anatomy.final_norm)(hidden)).float()
    cap = getattr(model.model.config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def record(model: LoadedModel, embeddings: torch.Tensor, kinds: Sequence[Kind] = ()) -> Run:
    """Run the blocks once on `embeddings` (R, T, D) and keep what a replay needs."""
    layers = range(model.anatomy.layer_count)
    kept: dict[Kind, list[torch.Tensor]] = {kind: [] for kind in kinds}
    handles = [model.model.get_submodule(contribution_path(model, kind, layer)).register_forward_hook(
        lambda _, __, output, kind=kind: kept[kind].append(_first(output).reshape(embeddings.shape)))
        for kind in kinds for layer in layers]
    cache = DynamicCache()
    with _removing(handles):
        walk = Walk(model, inputs_embeds=embeddings, past_key_values=cache, use_cache=True)
        states = [walk.entry]
        for layer in layers:
            states.append(walk.run(states[-1], layer, layer))
    return Run(torch.stack(states), {kind: torch.stack(values) for kind, values in kept.items()}, cache)


def scrambled(run: Run, generator: torch.Generator) -> Run:
    """The run with every state and contribution in a random direction, of its own length: what a control restores."""
    def turned(values: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(values.shape, generator=generator).to(values)
        return noise * (values.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True))

    return Run(turned(run.states), {kind: turned(values) for kind, values in run.contributions.items()}, run.cache)


class FrozenPrefix(DynamicCache):
    """Keys and values of the positions before the replayed ones, for S rows; it answers 1, S, 2S, 3S ... rows, stores none."""

    def __init__(self, cache: DynamicCache, length: int) -> None:
        self.pairs = [(keys[..., :length, :], values[..., :length, :]) for keys, values, *_ in cache]
        super().__init__(ddp_cache_data=self.pairs)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int,
               *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The prefix, repeated to the rows at hand, followed by the new positions."""
        keys, values = self.pairs[layer_idx]
        return _after(keys, key_states), _after(values, value_states)


class Replay:
    """Restorations of one token `position`, from a corrupted run of S rows and a clean (or scrambled) run of one row.

    The walk is prepared on one row, so that its masks and tables broadcast over any number of rows.
    """

    def __init__(self, model: LoadedModel, embeddings: torch.Tensor, corrupted: Run, clean: Run, position: int) -> None:
        self.model, self.corrupted, self.clean, self.position = model, corrupted, clean, position
        self.layer_count = model.anatomy.layer_count
        self.samples = corrupted.states.shape[1]
        self.walk = Walk(model, inputs_embeds=embeddings[:1, position:], use_cache=True,
                         past_key_values=FrozenPrefix(corrupted.cache, position))

    def probabilities(self, cells: Sequence[Restoration], answer: int, rows_at_once: int) -> torch.Tensor:
        """P(answer) under each restoration: (cells, S) float32, in the order of `cells`."""
        order = sorted(range(len(cells)), key=lambda index: cells[index].start)
        size = max(1, rows_at_once // self.samples)
        found = torch.empty(len(cells), self.samples)
        for chunk in (order[begin:begin + size] for begin in range(0, len(order), size)):
            found[chunk] = self._climb([cells[index] for index in chunk], answer).cpu()
        return found

    def _climb(self, cells: Sequence[Restoration], answer: int) -> torch.Tensor:
        """`cells` sorted by start: each joins the batch at its own layer."""
        hidden, live = self.corrupted.states[0][:0, self.position:], 0
        for layer in range(cells[0].start, self.layer_count + 1):
            while live < len(cells) and cells[live].start == layer:
                hidden, live = torch.cat([hidden, self._entrance(cells[live])]), live + 1
            if layer < self.layer_count:
                with self._holding(cells[:live], layer):
                    hidden = self.walk.run(hidden, layer, layer)
        probability = answer_logits(self.model, hidden[:, -1]).softmax(-1)[:, answer]
        return probability.reshape(len(cells), self.samples)

    def _entrance(self, cell: Restoration) -> torch.Tensor:
        hidden = self.corrupted.states[cell.start][:, self.position:].clone()
        if cell.restores_state:
            hidden[:, 0] = self.clean.states[cell.start][0, self.position]
        return hidden

    @contextmanager
    def _holding(self, live: Sequence[Restoration], layer: int) -> Iterator[None]:
        """Inside the block, rows whose layers cover `layer` get their module's output at the token from the run they hold."""
        handles = []
        for module in CONTRIBUTIONS:
            held = [(row, cell) for row, cell in enumerate(live) if cell.module == module and cell.first <= layer < cell.stop]
            parts = [([row for row, cell in held if cell.restores_state is severed], source.contributions[module][layer])
                     for severed, source in ((False, self.clean), (True, self.corrupted)) if module in source.contributions]
            wanted = [(rows, values[:, self.position]) for rows, values in parts if rows]
            if wanted:
                path = contribution_path(self.model, module, layer)
                handles.append(self.model.model.get_submodule(path).register_forward_hook(
                    _holder(wanted, len(live), self.samples)))
        with _removing(handles):
            yield


def _holder(wanted: Sequence[tuple[list[int], torch.Tensor]], rows: int, samples: int) -> Callable[..., Any]:
    """A hook that puts values (1 or S, D) in place at the first token, for some of the restorations of a batch."""
    def hook(_: torch.nn.Module, __: Any, output: Any) -> Any:
        value = _first(output).clone()
        for held, values in wanted:
            # some families (OPT) hand their feed-forward module flattened tokens instead of sequences
            value.view(rows, samples, -1, value.shape[-1])[held, :, 0] = values
        return (value, *output[1:]) if isinstance(output, tuple) else value

    return hook


def _after(prefix: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    rows, samples = new.shape[0], prefix.shape[0]
    before = prefix[:rows] if rows < samples else prefix.repeat(rows // samples, 1, 1, 1)
    return torch.cat([before, new], dim=-2)


def _first(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


@contextmanager
def _removing(handles: Sequence[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
