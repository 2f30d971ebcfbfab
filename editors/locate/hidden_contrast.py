"""Where wanted and present answers part: the layer whose hidden states differ most, each layer measured by its own length.

For every prompt the model reads the wanted answer (of a batch that detoxifies, the safe one) and the one it would give
itself. At each block's output the states of an answer's tokens are averaged, and the layer's contrast is

    |mean h_safe - mean h_unsafe| / (the mean length of both's states),

averaged over prompts. The authors take the distance alone; states grow with depth, so that a late layer wins by its
length, and they take the states of padding too and leave the prompt out.

Source: Wang et al. 2024, "Detoxifying Large Language Models via Knowledge Editing", arXiv:2403.14472, eq. 3.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from editors.blocks import pad, prefill
from editors.contract import EditBatch, Evidence
from editors.errors import SheetError
from editors.loading import LoadedModel
from editors.own_answers import own_pairs, safe_pairs
from editors.prompts import Encoded, encode, render

TABLE, PICTURE = "hidden_contrast.csv", "hidden_contrast.png"
OWN_TOKENS = 16
MOST_UPDATES = 32
"""Of a larger batch so many updates are compared, evenly spaced over it."""
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
        SheetError: a batch that detoxifies has no unsafe prompts.
    """
    means = [answer_states(model, pairs) for pairs in contrasted_pairs(model, batch)]
    length = torch.stack([lengths for _, lengths in means]).mean(0)
    distance = (means[0][0] - means[1][0]).norm(dim=-1)
    return HiddenContrast((distance / length.clamp(min=1e-20)).mean(0).cpu(), distance.mean(0).cpu(), length.mean(0).cpu())


def contrasted_pairs(model: LoadedModel, batch: EditBatch) -> tuple[list[Encoded], list[Encoded]]:
    """Prompts with the answers wanted, and with the model's own; those of an update are cut to the wanted ones' length.

    Raises:
        SheetError: a batch that detoxifies has no unsafe prompts.
    """
    if batch.updates:
        count = min(MOST_UPDATES, len(batch.updates))
        chosen = [batch.updates[index * len(batch.updates) // count] for index in range(count)]
        wanted = [encode(render(request, model.tokenizer), model.tokenizer) for request in chosen]
        lengths = [len(one.ids) - one.prompt_length for one in wanted]
        own = own_pairs(model, wanted, max(lengths))
        return wanted, [replace(said, ids=said.ids[:said.prompt_length + length])
                        for said, length in zip(own, lengths, strict=True)]
    safe = safe_pairs(model, batch)
    if not safe:
        raise SheetError("no request has unsafe prompts", "add `unsafe`, or use method: promote_values")
    return safe, own_pairs(model, safe, OWN_TOKENS)


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


def write_contrast(found: HiddenContrast, chosen: int, folder: Path, edit_layers: Sequence[int] = ()) -> tuple[Evidence, ...]:
    """Write the table and the picture into `folder`; their names in it. Numbers only: no text. `chosen` is the layer of
    greatest contrast among those to be edited, which are marked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TABLE).write_text(as_csv(found), encoding="utf-8")
    draw(found, chosen, folder / PICTURE, edit_layers)
    title = "Contrast of wanted and present answers by layer"
    alt = (f"Two lines over layers 0 to {len(found.contrast) - 1}: the contrast in units of the states' length, greatest at "
           f"layer {found.peak(range(len(found.contrast)))}, and the plain distance, scaled.")
    return (Evidence(kind="table", path=TABLE, title=f"{title}: the table"),
            Evidence(kind="picture", path=PICTURE, title=title, alt=alt))


def as_csv(found: HiddenContrast) -> str:
    """A row a layer."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("layer", "contrast", "distance", "state_length"))
    for layer, row in enumerate(zip(found.contrast.tolist(), found.distance.tolist(), found.length.tolist(), strict=True)):
        writer.writerow((layer, *(f"{value:.6g}" for value in row)))
    return stream.getvalue()


def draw(found: HiddenContrast, chosen: int, path: Path, edit_layers: Sequence[int] = ()) -> None:
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
    for layer in edit_layers:
        axes.axvspan(layer - 0.5, layer + 0.5, color="#DDDDDD", linewidth=0, zorder=0)
    axes.axvline(chosen, color="#555555", linewidth=1, linestyle=":", label="greatest of the layers to be edited")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("layer", fontsize=9)
    axes.set_ylabel("contrast", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.legend(frameon=False, fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.suptitle("Where the states of wanted and present answers part, mean over prompts. Grey: layers to be edited.",
                    fontsize=9, x=0.01, ha="left")
    figure.savefig(path, dpi=130, metadata={"Software": None})
