"""Privacy neurons as evidence: a table of neurons and a picture of the layers. Numbers only: no text, no tokens."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from editors.contract import Evidence

if TYPE_CHECKING:
    from editors.locate.privacy_neurons import Found

TABLE, PICTURE = "neurons.csv", "neurons.png"


def write_neurons(found: Found, by_layer: Tensor, requests: int, folder: Path) -> tuple[Evidence, ...]:
    """Write both files into `folder`; their names in it.

    Args:
        found: The neurons.
        by_layer: (L,) attribution of all neurons of a layer that raise the secrets, mean over texts, in nats.
        requests: How many requests voted.
        folder: Made where it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TABLE).write_text(as_csv(found, requests), encoding="utf-8")
    draw(found, by_layer, requests, folder / PICTURE)
    title = f"Privacy neurons, {len(found.layers)} of {requests} requests" if requests > 1 else "Privacy neurons"
    alt = (f"Bars over layers 0 to {len(by_layer) - 1}: how many of the {len(found.layers)} neurons lie in each layer, and "
           f"what each layer's neurons add to the secrets, most in layer {int(by_layer.argmax())}.")
    return (Evidence(kind="table", path=TABLE, title=f"{title}: votes and attribution"),
            Evidence(kind="picture", path=PICTURE, title=f"{title}: where they lie", alt=alt))


def as_csv(found: Found, requests: int) -> str:
    """The neurons as CSV text, best first."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("rank", "layer", "neuron", "votes", "requests", "attribution_nats"))
    rows = zip(found.layers.tolist(), found.indices.tolist(), found.votes.tolist(), found.attributions.tolist(), strict=True)
    for rank, (layer, neuron, votes, attribution) in enumerate(rows, 1):
        writer.writerow((rank, layer, neuron, votes, requests, f"{attribution:.6g}"))
    return stream.getvalue()


def draw(found: Found, by_layer: Tensor, requests: int, path: Path) -> None:
    """Write the picture as PNG: neurons a layer, and what the layer's neurons add. The same input gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layers = range(len(by_layer))
    counts = [int((found.layers == layer).sum()) for layer in layers]
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    above.bar(layers, counts, color="#0072B2", width=0.8)
    above.set_ylabel("privacy neurons", fontsize=9)
    below.bar(layers, by_layer.tolist(), color="#E69F00", width=0.8)
    below.set_ylabel("nats of log P(secret)", fontsize=9)
    below.set_xlabel("layer", fontsize=9)
    for axes in (above, below):
        axes.tick_params(labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.suptitle(f"{len(found.layers)} neurons of {requests} requests; below, what a layer's neurons that raise\n"
                    "a secret over never-seen values add to it, mean over its texts", fontsize=9, x=0.01, ha="left")
    figure.savefig(path, dpi=130, metadata={"Software": None})
