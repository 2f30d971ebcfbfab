"""A model that carries edit upon edit, as a served one does, and is its old self again afterwards."""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType

import torch

from editors.digest import digest_document, digest_tensor
from editors.errors import IntegrityError
from editors.loading import LoadedModel
from editors.patch import Patch, edited_tensor


class Line:
    """Inside the `with` block, `model` is the base under every patch appended so far.

    Its digests follow the edits, so that each patch names what it was made on.
    """

    def __init__(self, base: LoadedModel) -> None:
        digests = {name: digest_tensor(parameter) for name, parameter in base.model.named_parameters()}
        self.model = replace(base, tensor_digests=digests)
        self.base_digest = base.digest
        self.patches: list[Patch] = []
        self._clean = dict(digests)
        self._before: dict[str, torch.Tensor] = {}

    def __enter__(self) -> Line:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for name, weight in self._before.items():
            self._write(name, weight)

    def append(self, patch: Patch) -> None:
        """Write the patch into the model's own parameters.

        Raises:
            IntegrityError: it was not made for the model as it is, or its update is not finite; nothing is written.
        """
        edited = {name: edited_tensor(name, self.model.model.get_parameter(name).detach(), [patch])
                  for name in patch.parameters}
        for name, weight in edited.items():
            if not bool(torch.isfinite(weight).all()):
                raise IntegrityError(f"patch {len(self.patches) + 1} leaves {name} with values that are not finite",
                                     "look at the patch before it")
        for name, weight in edited.items():
            self._before.setdefault(name, self.model.model.get_parameter(name).detach().clone())
            self._write(name, weight)
        self.patches.append(patch)
        digests = {**self.model.tensor_digests, **{name: digest_tensor(weight) for name, weight in edited.items()}}
        self.model = replace(self.model, tensor_digests=digests, digest=digest_document({"line": digests}))

    def update_norms(self) -> dict[int, float]:
        """||W_t - W_0|| / ||W_0|| of every layer that an edit has touched, over the parameters touched there."""
        squares: dict[int, list[float]] = {}
        for name, weight in self._before.items():
            layer = self.model.anatomy.layer_of(name)
            total = squares.setdefault(-1 if layer is None else layer, [0.0, 0.0])
            total[0] += float((self.model.model.get_parameter(name).detach().double() - weight.double()).square().sum())
            total[1] += float(weight.double().square().sum())
        return {layer: (change / whole) ** 0.5 for layer, (change, whole) in sorted(squares.items())}

    def verify(self) -> None:
        """Prove that the model is the base under the stack, bit for bit, in every parameter.

        Raises:
            IntegrityError: it is not; an editor has left something behind.
        """
        for name, parameter in self.model.model.named_parameters():
            if name in self._before:
                is_right = torch.equal(edited_tensor(name, self._before[name], self.patches), parameter.detach())
            else:
                is_right = digest_tensor(parameter) == self._clean[name]
            if not is_right:
                raise IntegrityError(f"{name} is not the base's under the {len(self.patches)} patches appended",
                                     "run tests/editors/test_contract.py on the method")

    def _write(self, name: str, weight: torch.Tensor) -> None:
        with torch.no_grad():
            self.model.model.get_parameter(name).copy_(weight)
