"""Where safe and unsafe answers part: the layer whose hidden states differ most, each layer measured by its own length.

For every unsafe prompt the model reads the safe answer and the one it would give itself. At each block's output the states
of an answer's tokens are averaged, and the layer's contrast is

    |mean h_safe - mean h_unsafe| / (the mean length of both's states),

averaged over prompts. The authors take the distance alone; states grow with depth, so that a late layer wins by its
length, and they take the states of padding too and leave the prompt out.

Source: Wang et al. 2024, "Detoxifying Large Language Models via Knowledge Editing", arXiv:2403.14472, eq. 3.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from editors.blocks import pad, prefill
from editors.contract import EditBatch, Evidence
from editors.errors import SheetError
from editors.loading import LoadedModel
from editors.own_answers import own_pairs, safe_pairs
from editors.prompts import Encoded

TABLE, PICTURE = "hidden_contrast.csv", "hidden_contrast.png"
OWN_TOKENS = 16
ROWS_AT_ONCE = 32


@dataclass(frozen=True)
class HiddenContrast:
    """By layer (L,): the normalised contrast, the plain distance, and the mean length of the states."""

    contrast: Tensor
    distance: Tensor
    length: Tensor

    def peak(self, layers: Sequence[int]) -> int:
        """The layer of greatest contrast among these."""
        return max(sorted(layers), key=lambda layer: float(self.contrast[layer]))


def hidden_contrast(model: LoadedModel, batch: EditBatch) -> HiddenContrast:
    """The contrast of every layer; the model is unchanged.

    Raises:
        SheetError: a request has no unsafe prompts.
    """
    safe = safe_pairs(model, batch)
    if not safe:
        raise SheetError("no request has unsafe prompts", "add `unsafe`, or use method: promote_values")
    means = [answer_states(model, pairs) for pairs in (safe, own_pairs(model, safe, OWN_TOKENS))]
    length = torch.stack([lengths for _, lengths in means]).mean(0)
    distance = (means[0][0] - means[1][0]).norm(dim=-1)
    return HiddenContrast((distance / length.clamp(min=1e-20)).mean(0).cpu(), distance.mean(0).cpu(), length.mean(0).cpu())


@torch.no_grad()
def answer_states(model: LoadedModel, pairs: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
    """Of each pair and layer: the mean state (P, L, D) of the answer's tokens, and their mean length (P, L).

    An answer of no token, where the model ends at once, is read at the prompt's last.
    """
    states, lengths = [], []
    for start in range(0, len(pairs), ROWS_AT_ONCE):
        group = pairs[start:start + ROWS_AT_ONCE]
        batch = pad([pair.ids for pair in group], model.device)
        first = torch.tensor([min(pair.prompt_length, len(pair.ids) - 1) for pair in group], device=model.device)
        place = torch.arange(batch.ids.shape[1], device=model.device)[None]
        weight = ((place >= first[:, None]) & batch.valid).float()
        weight = weight / weight.sum(1, keepdim=True)
        walk = prefill(model, batch)
        hidden, by_layer = walk.entry, []
        for layer in range(model.anatomy.layer_count):
            hidden = walk.run(hidden, layer, layer)
            by_layer.append((torch.einsum("bt,btd->bd", weight, hidden.float()), (weight * hidden.float().norm(dim=-1)).sum(1)))
        states.append(torch.stack([mean for mean, _ in by_layer], 1))
        lengths.append(torch.stack([length for _, length in by_layer], 1))
    return torch.cat(states), torch.cat(lengths)


def write_contrast(found: HiddenContrast, chosen: int, folder: Path) -> tuple[Evidence, ...]:
    """Write the table and the picture into `folder`; their names in it. Numbers only: no text."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TABLE).write_text(as_csv(found), encoding="utf-8")
    draw(found, chosen, folder / PICTURE)
    title = "Contrast of safe and own answers by layer"
    return (Evidence(kind="table", path=TABLE, title=title), Evidence(kind="picture", path=PICTURE, title=title))


def as_csv(found: HiddenContrast) -> str:
    """A row a layer."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("layer", "contrast", "distance", "state_length"))
    for layer, row in enumerate(zip(found.contrast.tolist(), found.distance.tolist(), found.length.tolist(), strict=True)):
        writer.writerow((layer, *(f"{value:.6g}" for value in row)))
    return stream.getvalue()


def draw(found: HiddenContrast, chosen: int, path: Path) -> None:
    """Write the picture as PNG: the normalised contrast, and beside it the distance that the authors take."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    layers = range(len(found.contrast))
    axes.plot(layers, found.contrast.tolist(), color="#0072B2", label="contrast in units of the states' length")
    axes.plot(layers, (found.distance / found.distance.max().clamp(min=1e-20) * found.contrast.max()).tolist(),
              color="#E69F00", linestyle="--", label="plain distance (scaled)")
    axes.axvline(chosen, color="#999999", linewidth=1)
    axes.set_xlabel("layer", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.legend(frameon=False, fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=130, metadata={"Software": None})
