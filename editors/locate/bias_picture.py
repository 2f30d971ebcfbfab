"""The bias trace as a picture: modules over layers on the left, every head on the right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from editors.locate.bias_trace import BiasTrace

STYLES = {  # Okabe and Ito's colours, told apart by dash and marker as well
    ("mlp", "term last"): ("#D55E00", "-", "o"), ("mlp", "prompt last"): ("#E69F00", "--", "s"),
    ("attention", "term last"): ("#56B4E9", ":", "v"), ("attention", "prompt last"): ("#0072B2", "-", "D")}


def draw_bias(found: BiasTrace, path: Path, edit_layers: Sequence[int] = ()) -> None:
    """Write the picture as PNG; `edit_layers` are marked. The same trace gives the same bytes."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=[1.2, 1])
    for layer in edit_layers:
        left.axvspan(layer - 0.5, layer + 0.5, color="#DDDDDD", linewidth=0, zorder=0)
    for (kind, role), (colour, dash, marker) in STYLES.items():
        cells = [cell for cell in found.cells if (cell.kind, cell.role) == (kind, role)]
        layers = [cell.layer for cell in cells]
        left.plot(layers, [cell.share for cell in cells], color=colour, linestyle=dash, marker=marker, markersize=3,
                  linewidth=1.3, label=f"{kind}, {role}")
        if cells and cells[0].low is not None:
            scale = 1 / found.difference if found.difference else 0.0
            left.fill_between(layers, [(cell.low or 0.0) * scale for cell in cells],
                              [(cell.high or 0.0) * scale for cell in cells], color=colour, alpha=0.12, linewidth=0)
    left.axhline(0.0, color="#BBBBBB", linewidth=0.6, zorder=0)
    left.set_xlabel("layer", fontsize=9)
    left.set_ylabel("share of the terms' difference", fontsize=9)
    left.legend(fontsize=8, frameon=False)
    heads = [cell for cell in found.cells if cell.kind == "head"]
    grid = np.zeros((1 + max(cell.head or 0 for cell in heads), 1 + max(cell.layer for cell in heads)))
    for cell in heads:
        grid[cell.head or 0, cell.layer] = cell.share
    limit = max(float(np.abs(grid).max()), 1e-6)
    image = right.imshow(grid, aspect="auto", cmap="PuOr", vmin=-limit, vmax=limit, interpolation="nearest")
    right.set_xlabel("layer", fontsize=9)
    right.set_ylabel("head, at the prompt's last token", fontsize=9)
    figure.colorbar(image, ax=right, shrink=0.9).ax.tick_params(labelsize=8)
    for axes in (left, right):
        axes.tick_params(labelsize=8)
    figure.suptitle(f"What carries the group: one module's output exchanged for the other group's term, {found.pairs} pairs "
                    f"that differ by {found.difference:.2f} nats. Grey: layers to be edited.", fontsize=9, x=0.01, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})
