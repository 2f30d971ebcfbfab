"""Knowledge neurons as a picture: each neuron at its layer and strength above, what whole layers add below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from editors.locate.privacy_neurons import Found

NAMED = 6
"""Neurons named in the picture, the strongest."""


def draw(found: Found, by_layer: Tensor, requests: int, completeness: str, path: Path, edit_layers: Sequence[int] = ()) -> None:
    """Write the picture as PNG. The same input gives the same bytes.

    Args:
        found: The neurons.
        by_layer: (L,) attribution of all neurons of a layer that raise the answers, mean over texts, in nats.
        requests: How many requests voted.
        completeness: How well the attributions sum up, in words.
        path: Where to.
        edit_layers: Layers to be edited, marked.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1.5, 1])
    layers, strengths, votes = found.layers.tolist(), found.attributions.tolist(), found.votes.tolist()
    for layer in edit_layers:
        for axes in (above, below):
            axes.axvspan(layer - 0.5, layer + 0.5, color="#DDDDDD", linewidth=0, zorder=0)
    above.scatter(layers, strengths, s=[28 + 90 * vote / requests for vote in votes], color="#0072B2", alpha=0.75,
                  edgecolor="black", linewidth=0.5, zorder=2)
    strongest = sorted(range(len(layers)), key=lambda place: -strengths[place])[:NAMED]
    for place in strongest:
        above.annotate(f"{layers[place]}: {found.indices[place]}", (layers[place], strengths[place]), fontsize=8,
                       textcoords="offset points", xytext=(7, 3))
    above.set_xlim(-1, len(by_layer) + 1.5)
    above.set_ylim(bottom=0, top=1.15 * max(strengths, default=1.0))
    above.set_ylabel("nats of log P(answer), a neuron", fontsize=9)
    below.bar(range(len(by_layer)), by_layer.tolist(), color="#E69F00", width=0.8, zorder=2)
    below.set_ylabel("nats, a layer", fontsize=9)
    below.set_xlabel("layer", fontsize=9)
    for axes in (above, below):
        axes.tick_params(labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.suptitle(f"{len(layers)} knowledge neurons of {requests} requests; a larger dot has more requests' votes, the "
                    f"strongest are named layer: neuron.\nBelow: what a layer's neurons that raise the answer add to it, mean "
                    f"over texts.{' Grey: layers to be edited.' if edit_layers else ''}\n{completeness}",
                    fontsize=9, x=0.01, ha="left")
    figure.savefig(path, dpi=130, metadata={"Software": None})
