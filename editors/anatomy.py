"""Where things live in a model: block list, FFN output matrix, attention, norm, head.

Data (`architectures.json`) keyed by `config.model_type`, checked against the real shapes. Another architecture is
another entry there, not another branch here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from editors.errors import ArchitectureError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Anatomy:
    """Module paths of one decoder and its sizes.

    `layout` says how the FFN output matrix is stored: "out_in" (D, F) for Linear, "in_out" (F, D) for Conv1D.
    """

    model_type: str
    body: str
    blocks: str
    mlp: str
    mlp_output: str
    mlp_inputs: tuple[str, ...]
    """The maps into the FFN; all read the same vector."""
    attention: str
    attention_output: str
    embedding: str
    final_norm: str
    head: str
    layout: Literal["out_in", "in_out"]
    layer_count: int
    hidden_size: int
    inner_size: int
    vocabulary_size: int
    output_norm: str | None = None
    """The norm between the FFN output matrix and the residual stream, in the families that have one."""

    def require_plain_output(self, method: str) -> None:
        """Refuse families whose FFN output is normalised before it is added: a wanted sum then has no linear solution.

        Raises:
            ArchitectureError: the family has such a norm.
        """
        if self.output_norm is not None:
            raise ArchitectureError(f"{method} cannot edit {self.model_type}: its FFN output passes {self.output_norm} "
                                    "before it is added", "choose a model without that norm (Llama, Qwen, GPT-2, OPT ...)")

    def block_path(self, layer: int) -> str:
        """Path of block `layer`, 0-based."""
        return f"{self.blocks}.{layer}"

    def mlp_path(self, layer: int) -> str:
        """Path of the module whose output is the FFN's contribution to the residual stream."""
        return f"{self.blocks}.{layer}.{self.mlp}"

    def attention_path(self, layer: int) -> str:
        """Path of the attention module."""
        return f"{self.blocks}.{layer}.{self.attention}"

    def attention_output_path(self, layer: int) -> str:
        """Path of the map from all heads to the residual stream."""
        return f"{self.blocks}.{layer}.{self.attention_output}"

    def mlp_input_paths(self, layer: int) -> tuple[str, ...]:
        """Paths of the maps into the FFN."""
        return tuple(f"{self.blocks}.{layer}.{one}" for one in self.mlp_inputs)

    def mlp_output_path(self, layer: int) -> str:
        """Path of the module whose input is the FFN's key."""
        return f"{self.blocks}.{layer}.{self.mlp_output}"

    def mlp_output_parameter(self, layer: int) -> str:
        """Name of the matrix that closed-form editors change."""
        return f"{self.mlp_output_path(layer)}.weight"

    def layer_of(self, parameter: str) -> int | None:
        """The block a parameter belongs to; None for embeddings, final norm and head."""
        found = re.match(re.escape(self.blocks) + r"\.(\d+)\.", parameter)
        return int(found.group(1)) if found else None

    def check(self, model: torch.nn.Module) -> None:
        """Compare the promises with the real modules.

        Raises:
            ArchitectureError: a module is missing, or the FFN output matrix has another shape.
        """
        expected = (self.hidden_size, self.inner_size)
        expected = expected if self.layout == "out_in" else expected[::-1]
        for layer in (0, self.layer_count - 1):
            name = self.mlp_output_parameter(layer)
            try:
                for path in (self.attention_path(layer), self.attention_output_path(layer), *self.mlp_input_paths(layer)):
                    model.get_submodule(path)
                model.get_submodule(self.final_norm)
                found = tuple(model.get_parameter(name).shape)
            except AttributeError as error:
                raise ArchitectureError(f"{self.model_type}: {error}",
                                        "mend its entry in editors/architectures.json") from error
            if found != expected:
                raise ArchitectureError(f"{self.model_type}: {name} has the shape {found}, expected {expected}",
                                        "mend its entry in editors/architectures.json")


@cache
def known_model_types() -> dict[str, dict[str, Any]]:
    """Every `model_type` in the data, with its entry."""
    entries = json.loads(Path(__file__).with_name("architectures.json").read_text())
    return {model_type: entry for entry in entries.values() for model_type in entry["model_types"]}


def anatomy_of(config: dict[str, Any]) -> Anatomy:
    """The anatomy for a model's `config.json`.

    Raises:
        ArchitectureError: the `model_type` is not in the data, or a size is missing.
    """
    model_type = config.get("model_type")
    entry = known_model_types().get(str(model_type))
    if entry is None:
        raise ArchitectureError(
            f"the architecture {model_type!r} is unknown; known are {', '.join(sorted(known_model_types()))}",
            "add an entry to editors/architectures.json, like those that are there: blocks, mlp_output and the rest")
    try:
        hidden = int(config.get("hidden_size") or config["n_embd"])
        return Anatomy(
            model_type=str(model_type),
            layer_count=int(config.get("num_hidden_layers") or config["n_layer"]),
            hidden_size=hidden,
            inner_size=int(config.get(entry["inner_size"]) or 4 * hidden),
            vocabulary_size=int(config["vocab_size"]),
            mlp_inputs=tuple(entry["mlp_inputs"]),
            **{name: value for name, value in entry.items() if name not in ("model_types", "inner_size", "mlp_inputs")})
    except KeyError as error:
        raise ArchitectureError(f"config.json of this {model_type} model lacks {error}", "complete its config.json") from error
