"""The authors' algorithms as they are written, on the same model: the references of `promote_values` and `dinm`.

Source: Geva et al. 2022, arXiv:2203.14680, and its published script; Wang et al. 2024, arXiv:2403.14472, and its released
code, whose constraint has no gradient and whose layer is chosen by plain distance.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from editors.contract import EditBatch
from editors.dinm import Tuning
from editors.loading import LoadedModel
from editors.locate.hidden_contrast import hidden_contrast
from editors.locate.value_reading import Value, best_values, read_values, wish_of
from editors.moments import Corpus
from editors.own_answers import safe_pairs
from editors.patch import Patch, TensorEdit
from editors.promote_values import even_direction, keys_of_text, without_bias_edit
from editors.writing import as_edit

ACTIVATION = 3.0
VALUES = 10
STEPS, STEP = 10, 5e-4


def plain_promote(model: LoadedModel, batch: EditBatch, corpus: Corpus) -> Patch:
    """The ten clearest values of the upper half at an activation of 3, whatever is usual for each; one that promotes by its
    negative is held at -3. Where the family has no bias, by the static form that `promote_values` uses.
    """
    layers = range(model.anatomy.layer_count // 2, model.anatomy.layer_count)
    values = best_values(list(layers), read_values(model, layers, wish_of(model, batch, corpus)), (1, -1), VALUES)
    chosen = sorted({value.layer for value in values})
    keys = keys_of_text(model, chosen, corpus)
    return Patch(tuple(_held(model, [value for value in values if value.layer == layer], keys[layer]) for layer in chosen))


def plain_dinm(model: LoadedModel, batch: EditBatch) -> Patch:
    """Ten steps of Adam on one matrix towards the safe answers; nothing holds anything else."""
    distance = hidden_contrast(model, batch).distance
    layer = int(distance.argmax())
    tuning = Tuning(model, layer, safe_pairs(model, batch), (), 1024)
    change = torch.zeros(model.anatomy.hidden_size, model.anatomy.inner_size, device=model.device, requires_grad=True)
    optimiser = torch.optim.Adam([change], lr=STEP)
    for _ in range(STEPS):
        optimiser.zero_grad()
        tuning.answer_losses(change, 1.0)
        optimiser.step()
    return Patch((as_edit(model, layer, change.detach(), torch.eye(change.shape[1], device=model.device)),))


def _held(model: LoadedModel, values: Sequence[Value], keys: torch.Tensor) -> TensorEdit:
    direction = even_direction(keys.mean(0), keys.T @ keys / len(keys))
    activations = ACTIVATION * torch.tensor([float(value.sign) for value in values], device=keys.device)
    return without_bias_edit(model, values, activations, direction)
