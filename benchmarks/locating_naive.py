"""Causal tracing the plain way: for every cell a whole run from the token ids, hooks on the modules, all logits.

As the released code does (experiments/causal_trace.py of arXiv:2202.05262): the clean prompt runs beside its blurred copies,
so that what is put back is at hand in the same run. A severed cell takes a run more, which records what is held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from editors.loading import LoadedModel
from editors.locate.causal_trace import TracedPrompt
from editors.locate.replay import Kind


class NaiveTrace:
    """One prompt's cells. `blurred`: embeddings (S, T, D), each a noise draw."""

    def __init__(self, model: LoadedModel, prompt: TracedPrompt, blurred: torch.Tensor, window: int) -> None:
        self.model, self.prompt, self.blurred, self.window = model, prompt, blurred, window
        logits = self._run({}, prompt.last)
        self.answer = int(logits[0].argmax())
        self.baseline = logits[1:].softmax(-1)[:, self.answer]

    def effect(self, kind: Kind, layer: int, position: int) -> torch.Tensor:
        """(S,) P(answer) with the values of the cell put back, minus without."""
        anatomy = self.model.anatomy
        path_of = {"state": anatomy.block_path, "mlp": anatomy.mlp_path, "attention": anatomy.attention_path}
        module = kind.removesuffix(" severed")
        held: dict[str, torch.Tensor | None] = {}
        if kind != module:
            later = [path_of[module](each) for each in range(layer + 1, anatomy.layer_count)]
            held = {anatomy.block_path(layer): None, **self._corrupted(later, position)}
        else:
            low, high = (layer, layer + 1) if kind == "state" else (layer - self.window // 2, layer + (self.window + 1) // 2)
            held = {path_of[kind](each): None for each in range(anatomy.layer_count) if low <= each < high}
        return self._run(held, position)[1:].softmax(-1)[:, self.answer] - self.baseline

    def _corrupted(self, paths: Sequence[str], position: int) -> dict[str, torch.Tensor]:
        """What the modules put out at the position in the corrupted run: (S, D) each."""
        found: dict[str, torch.Tensor] = {}

        def keep(path: str) -> Callable[..., None]:
            def hook(_: Any, __: Any, output: Any) -> None:
                found[path] = self._rows(output)[1:, position].clone()
            return hook

        handles = [self.model.model.get_submodule(path).register_forward_hook(keep(path)) for path in paths]
        self._run({}, position)
        for handle in handles:
            handle.remove()
        return found

    def _run(self, held: dict[str, torch.Tensor | None], position: int) -> torch.Tensor:
        """(1 + S, V) last logits. `held`: by module what its output is set to at the position; None: the clean row's."""
        model, rows = self.model.model, 1 + len(self.blurred)

        def put(values: torch.Tensor | None) -> Callable[..., Any]:
            def hook(_: Any, __: Any, output: Any) -> Any:
                state = self._rows(output)
                state[1:, position] = state[0, position] if values is None else values
                return output
            return hook

        def blur(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
            return torch.cat([output[:1], self.blurred])

        handles = [model.get_submodule(path).register_forward_hook(put(values)) for path, values in held.items()]
        handles.append(model.get_submodule(self.model.anatomy.embedding).register_forward_hook(blur))
        try:
            return model(torch.tensor([self.prompt.ids] * rows), use_cache=False).logits[:, -1].float()
        finally:
            for handle in handles:
                handle.remove()

    def _rows(self, output: Any) -> torch.Tensor:
        value = output[0] if isinstance(output, tuple) else output
        return value.view(1 + len(self.blurred), len(self.prompt.ids), -1)
