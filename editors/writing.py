"""Layer by layer from below: the part of every closed-form editor that comes after its target search.

The keys of all facts are read under the edits made so far, the distance that is left to the wanted states is shared out
among the layers to come, and the method's own closed form writes this layer's share.

Source: Meng et al. 2023, arXiv:2210.07229, algorithm 1, eqs. 19-20; Li et al. 2023 (PMET), arXiv:2308.08742, for the root.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from editors.contract import Progress, silent
from editors.earlier import earlier_keys, joined
from editors.facts import Facts, KeyRow
from editors.keys import KeyReader
from editors.loading import LoadedModel
from editors.patch import Dense, LowRank, Patch, TensorEdit, applied, smaller

LayerSolver = Callable[[int, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""How one layer is written: layer, keys (F, N), residuals (D, N), held keys (F, M) -> left (D, N), right (N, F)."""
Spread = Literal["even", "root"]
"""Share of the remaining distance that a layer takes, with n layers to come: 1/n (MEMIT) or 1/sqrt(n) (PMET)."""


@dataclass(frozen=True)
class Writing:
    """What is to be written. `change`: (N, D), what each fact's state after the last layer must gain."""

    facts: Facts
    layers: Sequence[int]
    """Ascending."""
    change: Tensor
    spread: Spread = "even"
    earlier: Sequence[Patch] = ()
    """What the model carries; the keys of these edits are held."""
    ordinary: tuple[KeyRow, ...] = ()
    """Keys of ordinary questions, held as well."""
    ordinary_weight: float = 1.0
    """Weight of one of those against one fact."""
    token_budget: int = 128


def write_layers(model: LoadedModel, writing: Writing, solve_layer: LayerSolver,
                 progress: Progress = silent) -> tuple[tuple[TensorEdit, ...], dict[str, Tensor]]:
    """One edit a layer, and the keys (F, N) that were written into each parameter; the model is unchanged afterwards."""
    reader = KeyReader(model, writing.facts.keys, writing.layers[0], writing.token_budget)
    keeper = KeyReader(model, writing.ordinary, writing.layers[0], writing.token_budget) if writing.ordinary else None
    edits: list[TensorEdit] = []
    written: dict[str, Tensor] = {}
    target: Tensor | None = None
    with ExitStack() as stack:
        for place, layer in enumerate(writing.layers):
            reader.advance(layer)
            keys, states = reader.read(writing.layers[-1])
            target = states + writing.change.T if target is None else target
            share = (len(writing.layers) - place) ** (1.0 if writing.spread == "even" else 0.5)
            ordinary = None
            if keeper:
                keeper.advance(layer)
                ordinary = keeper.read(layer)[0] * writing.ordinary_weight ** 0.5
            parameter = model.anatomy.mlp_output_parameter(layer)
            held = joined(ordinary, earlier_keys(writing.earlier, parameter, keys))
            edits.append(as_edit(model, layer, *solve_layer(layer, keys, (target - states) / share, held)))
            written[parameter] = keys
            stack.enter_context(applied(model.model, Patch((edits[-1],))))
            progress("layers written", place + 1, len(writing.layers))
    return tuple(edits), written


def as_edit(model: LoadedModel, layer: int, left: Tensor, right: Tensor) -> LowRank | Dense:
    """The update left @ right (D, F) of a layer's FFN output matrix, in the parameter's own layout, float32."""
    return edit_of(model, model.anatomy.mlp_output_parameter(layer), left, right)


def edit_of(model: LoadedModel, parameter: str, left: Tensor, right: Tensor) -> LowRank | Dense:
    """The same of any linear map's matrix."""
    if model.anatomy.layout == "in_out":
        left, right = right.T, left.T
    return smaller(LowRank(parameter, left.float().contiguous(), right.float().contiguous()))
