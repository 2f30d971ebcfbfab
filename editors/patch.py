"""A patch is an edit as a value: immutable, small, named by its digest, applied by one function.

Applying is `parameter += left @ right` for each low-rank part, in float64, then one cast to the parameter's dtype, patch
by patch in stack order. Undoing is re-applying the stack without the patch on the base, never subtraction.
On disk: `patch.safetensors` (factors and memory) and `patch.json` (provenance). See `LOADER_EXAMPLE` for reading it alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from editors.digest import canonical_json, digest_bytes, digest_tensor
from editors.errors import IntegrityError

FORMAT = "suture-patch-1"
MEMORY = "memory."
"""How the tensors of `Patch.memory` are named in the file; a reader of the edits alone passes them over."""


@dataclass(frozen=True)
class LowRank:
    """parameter += left @ right. left: (rows, rank), right: (rank, columns), float32, in the parameter's own layout."""

    parameter: str
    left: torch.Tensor
    right: torch.Tensor

    def delta(self, weight: torch.Tensor) -> torch.Tensor:
        """The update, float64, shaped like `weight`."""
        return self.left.to(weight.device, torch.float64) @ self.right.to(weight.device, torch.float64)


@dataclass(frozen=True)
class Scale:
    """Multiply slices of a parameter: `factor` (n,) on `neurons` (n,) along `axis`."""

    parameter: str
    neurons: torch.Tensor
    factor: torch.Tensor
    axis: int

    def delta(self, weight: torch.Tensor) -> torch.Tensor:
        """The update, float64, shaped like `weight`."""
        change = torch.zeros_like(weight, dtype=torch.float64)
        index = self.neurons.to(weight.device)
        shape = [-1 if axis == self.axis else 1 for axis in range(weight.ndim)]
        part = weight.index_select(self.axis, index).double() * (self.factor.to(weight.device).double() - 1).reshape(shape)
        return change.index_copy_(self.axis, index, part)


@dataclass(frozen=True)
class Dense:
    """parameter += change; for updates of full rank. change: shaped like the parameter, float32."""

    parameter: str
    change: torch.Tensor

    def delta(self, weight: torch.Tensor) -> torch.Tensor:
        """The update, float64, shaped like `weight`."""
        return self.change.to(weight.device, torch.float64)


def smaller(edit: LowRank) -> LowRank | Dense:
    """The same update in the form that holds fewer numbers; Dense where the factors hold more than the parameter.

    That is where rank > rows * columns / (rows + columns). The product is rounded to float32 once.
    """
    rank, size = edit.left.shape[1], edit.left.shape[0] * edit.right.shape[1]
    if rank * (edit.left.shape[0] + edit.right.shape[1]) <= size:
        return edit
    return Dense(edit.parameter, (edit.left.double() @ edit.right.double()).float())


TensorEdit = LowRank | Scale | Dense
KINDS: dict[str, Callable[..., TensorEdit]] = {"low_rank": LowRank, "scale": Scale, "dense": Dense}
TENSOR_FIELDS = {"low_rank": ("left", "right"), "scale": ("neurons", "factor"), "dense": ("change",)}


def kind_of(edit: TensorEdit) -> str:
    """The registered name of an edit's kind."""
    return next(name for name, kind in KINDS.items() if isinstance(edit, kind))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Patch:
    """An ordered set of tensor edits with their provenance.

    `provenance` is JSON: base and parent digests, `pre_image` (parameter -> tensor digest before this patch), method,
    config, batch digest, seed, device, dtype, code version, environment. It holds no time and no text of requests,
    so the same edit made twice has the same digest.

    `memory` is what later edits of the line must know of this one, and no part of the model: under `keys.<parameter>`
    the keys (F, N) that it wrote there, float32.
    """

    edits: tuple[TensorEdit, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    memory: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters it changes, in order, each once."""
        return tuple(dict.fromkeys(edit.parameter for edit in self.edits))

    def delta(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """The whole update of parameter `name`, float64, shaped like `weight`."""
        return sum((edit.delta(weight) for edit in self.edits if edit.parameter == name),
                   torch.zeros_like(weight, dtype=torch.float64))

    @property
    def digest(self) -> str:
        """SHA-256 of `patch.json`, which holds the SHA-256 of `patch.safetensors`."""
        return digest_bytes(self.serialise()[1])

    def serialise(self) -> tuple[bytes, bytes]:
        """The bytes of `patch.safetensors` and of `patch.json`."""
        tensors: dict[str, torch.Tensor] = {}
        entries = []
        for number, edit in enumerate(self.edits):
            kind = kind_of(edit)
            names = {part: f"{number}.{part}" for part in TENSOR_FIELDS[kind]}
            tensors |= {name: getattr(edit, part).detach().cpu().contiguous() for part, name in names.items()}
            extra = {"axis": edit.axis} if isinstance(edit, Scale) else {}
            entries.append({"kind": kind, "parameter": edit.parameter, "tensors": names, **extra})
        tensors |= {f"{MEMORY}{name}": tensor.detach().cpu().contiguous() for name, tensor in sorted(self.memory.items())}
        weights = save(tensors)
        document = {"format": FORMAT, "edits": entries, "tensors_sha256": digest_bytes(weights),
                    "provenance": dict(self.provenance)}
        return weights, canonical_json(document)

    def save(self, folder: Path) -> str:
        """Write both files into `folder`; returns the digest."""
        folder.mkdir(parents=True, exist_ok=True)
        weights, document = self.serialise()
        (folder / "patch.safetensors").write_bytes(weights)
        (folder / "patch.json").write_bytes(document)
        return digest_bytes(document)


def load_patch(folder: Path, expected_digest: str | None = None) -> Patch:
    """Read and verify a patch.

    Raises:
        IntegrityError: a file is missing or malformed, or its digest is not the expected one.
    """
    try:
        document = (folder / "patch.json").read_bytes()
        parsed = json.loads(document)
        tensors = load_file(folder / "patch.safetensors")
        if parsed["format"] != FORMAT:
            raise IntegrityError(f"{folder}/patch.json has the format {parsed['format']!r}, not {FORMAT!r}")
        edits = tuple(_edit_from(entry, tensors) for entry in parsed["edits"])
        promised, provenance = str(parsed["tensors_sha256"]), parsed["provenance"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise IntegrityError(f"the patch in {folder} cannot be read: {error}", "pull it again from the store") from error
    for what, found, expected in (
        ("patch.json", digest_bytes(document), expected_digest),
        ("patch.safetensors", digest_bytes((folder / "patch.safetensors").read_bytes()), promised),
    ):
        if expected is not None and found != expected:
            raise IntegrityError(f"{folder}/{what} has SHA-256 {found}, expected {expected}", "pull it again from the store")
    memory = {name.removeprefix(MEMORY): tensor for name, tensor in tensors.items() if name.startswith(MEMORY)}
    return Patch(edits, provenance, memory)


def _edit_from(entry: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> TensorEdit:
    kind = entry["kind"]
    parts = {part: tensors[entry["tensors"][part]] for part in TENSOR_FIELDS[kind]}
    extra = {"axis": int(entry["axis"])} if kind == "scale" else {}
    return KINDS[kind](entry["parameter"], **parts, **extra)


def edited_tensor(name: str, weight: torch.Tensor, patches: Sequence[Patch]) -> torch.Tensor:
    """The value of parameter `name` under the stack; dtype, shape and device of `weight`, which is unchanged.

    Values that are not finite pass through: the integrity probe measures them and the gate refuses them by name.

    Raises:
        IntegrityError: the value a patch finds is not the one it was made for.
    """
    for patch in patches:
        if name not in patch.parameters:
            continue
        expected = patch.provenance.get("pre_image", {}).get(name)
        if expected is not None and digest_tensor(weight) != expected:
            raise IntegrityError(f"{name} is not the tensor this patch was made for (expected {expected[:12]})",
                                 "apply the patch on its own base and stack")
        weight = (weight.double() + patch.delta(name, weight)).to(weight.dtype)
    return weight


@contextmanager
def applied(model: torch.nn.Module, patch: Patch) -> Iterator[None]:
    """The model under the patch, inside the block; bit-identical to before after it, errors included.

    Pre-images are not checked: they are digests of stored tensors, and a model in memory may be of a wider dtype.
    """
    bare = Patch(patch.edits)
    parameters = {name: model.get_parameter(name) for name in patch.parameters}
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    try:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(edited_tensor(name, parameter.detach(), [bare]))
        yield
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(before[name])


LOADER_EXAMPLE = '''\
import json, torch
from safetensors.torch import load_file
patch, tensors, changes = json.load(open("patch.json")), load_file("patch.safetensors"), {}
for edit in patch["edits"]:
    weight, part = model.get_parameter(edit["parameter"]).data, {name: tensors[key] for name, key in edit["tensors"].items()}
    if edit["kind"] == "scale":
        along = weight.double().movedim(edit["axis"], -1)
        factor = torch.ones(along.shape[-1]).double().index_copy_(0, part["neurons"], part["factor"].double())
        change = (along * (factor - 1)).movedim(-1, edit["axis"])
    else:
        change = part["change"].double() if edit["kind"] == "dense" else part["left"].double() @ part["right"].double()
    changes[edit["parameter"]] = changes.get(edit["parameter"], 0) + change
for name, change in changes.items():
    weight = model.get_parameter(name)
    weight.data = (weight.data.double() + change).to(weight.dtype)
'''
"""Reading a patch without this package; printed in its card. It gives the bits of `edited_tensor`."""
