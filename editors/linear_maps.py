"""The linear maps of a block that write: from all heads to the residual stream, and into and out of the FFN.

Queries, keys and values are left out: they say where attention looks, and what is changed there is felt at other tokens
than the one that it was measured at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from editors.anatomy import Anatomy

Vector = Literal["heads", "ffn", "key"]
"""What a map reads: all heads' values side by side, the FFN's input, the FFN's key."""


@dataclass(frozen=True)
class LinearMap:
    """One matrix (D, F), where it is, and what it reads."""

    layer: int
    vector: Vector
    path: str

    @property
    def parameter(self) -> str:
        """Name of the matrix."""
        return f"{self.path}.weight"


def maps_of(anatomy: Anatomy, layers: Sequence[int]) -> tuple[LinearMap, ...]:
    """Those of the layers, in the order in which a token passes them."""
    return tuple(one for layer in sorted(layers) for one in (
        LinearMap(layer, "heads", anatomy.attention_output_path(layer)),
        *(LinearMap(layer, "ffn", path) for path in anatomy.mlp_input_paths(layer)),
        LinearMap(layer, "key", anatomy.mlp_output_path(layer))))
