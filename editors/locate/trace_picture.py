"""The trace as a picture: one prompt's tokens over layers above, the mean of each token role below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editors.locate.causal_trace import ROLES, RequestTrace, TraceResult
from editors.locate.replay import SEVERED
from editors.locate.trace_table import role_means

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

TITLES = {"state": "block output (one layer)", "mlp": "feed-forward, {} layers", "attention": "attention, {} layers"}
ROLE_STYLES = {  # Okabe and Ito's colours, told apart by dash and marker as well
    "subject first": ("#56B4E9", ":", "v"), "subject middle": ("#E69F00", "--", "s"), "subject last": ("#D55E00", "-", "o"),
    "following": ("#999999", "-.", "^"), "prompt last": ("#0072B2", "-", "D")}
SEVERED_STYLES = {
    ("state", "subject last"): ("state", "#000000", "-", "o"),
    ("mlp severed", "subject last"): ("without feed-forward after it", "#D55E00", "--", "s"),
    ("attention severed", "subject last"): ("without attention after it", "#0072B2", "-.", "^"),
    ("state", "control, subject last"): ("a random state (control)", "#999999", ":", "v")}
FIRST_UNPRINTABLE = 0x530
"""DejaVu Sans, which comes with matplotlib, covers Latin, Greek and Cyrillic; other scripts are shown as escapes."""


def draw(result: TraceResult, path: Path, edit_layers: Sequence[int] = ()) -> None:
    """Write the picture as PNG; `edit_layers` are marked. The same result gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = [kind for kind in result.config.kinds if kind not in SEVERED]
    example = max(result.traces, key=lambda traced: traced.clean - traced.corrupted)
    columns = len(kinds) + 1
    figure = Figure(figsize=(1.2 + 4.0 * columns, 3.0 + 0.28 * len(example.tokens) + 2.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, columns, squeeze=False, height_ratios=[0.8 + 0.28 * len(example.tokens), 2.4])
    top = max((float(example.effects[kind].max()) for kind in kinds), default=0.0)
    for column, kind in enumerate(kinds):
        image = _heat(axes[0][column], result, example, kind, max(top, 1e-6))
        axes[0][column].set_title(TITLES[kind].format(result.config.window), fontsize=10)
        _curves(axes[1][column], result, kind, edit_layers)
        if column:
            axes[0][column].set_yticklabels([])
    _severed(axes[1][-1], result, edit_layers)
    axes[0][-1].set_axis_off()
    for panel in axes[1][1:]:
        panel.sharey(axes[1][0])
    if kinds:
        _colours(figure, image, axes[0][:-1], axes[1][-2])
    axes[1][0].set_ylabel("mean probability recovered", fontsize=9)
    figure.suptitle(_headline(result, example), fontsize=10, x=0.01, ha="left", parse_math=False)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _colours(figure: Any, image: AxesImage, heats: Sequence[Axes], curves: Axes) -> None:
    bar = figure.colorbar(image, ax=list(heats), shrink=0.9, pad=0.01)
    bar.set_label("probability recovered", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    curves.legend(fontsize=7.5, frameon=False, loc="upper left")


def _headline(result: TraceResult, example: RequestTrace) -> str:
    return (f"Restoring one clean state at a time, and what it recovers of P(answer). Above: request "
            f"{printable(example.prompt.request)}, answer {printable(example.answer)}, "
            f"P = {example.clean:.3f} clean, {example.corrupted:.3f} with the starred tokens blurred.\n"
            f"Below: mean over {len(result.traces)} of the batch's {result.batch_size} requests, "
            f"bands are 95% bootstrap intervals over requests and noise draws, grey columns the layers to be edited.")


def _heat(axes: Axes, result: TraceResult, traced: RequestTrace, kind: Any, top: float) -> AxesImage:
    image = axes.imshow(traced.effects[kind].numpy(), aspect="auto", cmap="cividis", vmin=0.0, vmax=top,
                        interpolation="nearest")
    labels = [printable(token) + (" *" if "subject" in traced.prompt.role(position) else "  ")
              for token, position in zip(traced.tokens, traced.prompt.positions, strict=True)]
    axes.set_yticks(range(len(labels)), labels, fontsize=8.5, parse_math=False)
    shown = range(0, len(result.layers), max(1, len(result.layers) // 8))
    axes.set_xticks(list(shown), [str(result.layers[index]) for index in shown], fontsize=8)
    axes.tick_params(length=0)
    axes.set_xlabel("layer", fontsize=9)
    for side in axes.spines.values():
        side.set_visible(False)
    return image


def _curves(axes: Axes, result: TraceResult, kind: Any, edit_layers: Sequence[int]) -> None:
    for role in ROLES:
        _curve(axes, result, kind, role, (role, *ROLE_STYLES[role]))
    _frame(axes, edit_layers)


def _severed(axes: Axes, result: TraceResult, edit_layers: Sequence[int]) -> None:
    for (kind, role), style in SEVERED_STYLES.items():
        _curve(axes, result, kind, role, style)
    _frame(axes, edit_layers)
    axes.set_title("subject's last token: paths severed, and the control", fontsize=10)
    if axes.lines:
        axes.legend(fontsize=7.5, frameon=False, loc="upper right")


def _curve(axes: Axes, result: TraceResult, kind: Any, role: str, style: tuple[str, str, str, str]) -> None:
    points = [mean for mean in role_means(result) if mean.kind == kind and mean.role == role]
    if not points:
        return
    label, colour, dash, marker = style
    layers = [point.layer for point in points]
    axes.plot(layers, [point.mean for point in points], color=colour, linestyle=dash, marker=marker, markersize=3,
              linewidth=1.3, label=label)
    if points[0].low is not None:
        axes.fill_between(layers, [point.low or 0.0 for point in points], [point.high or 0.0 for point in points],
                          color=colour, alpha=0.12, linewidth=0)


def _frame(axes: Axes, edit_layers: Sequence[int]) -> None:
    for layer in edit_layers:
        axes.axvspan(layer - 0.5, layer + 0.5, color="#DDDDDD", linewidth=0, zorder=0)
    axes.axhline(0.0, color="#BBBBBB", linewidth=0.6, zorder=0)
    axes.set_xlabel("layer", fontsize=9)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def printable(text: str) -> str:
    """The text without blanks at its ends, line breaks and characters that the picture's font lacks as escapes."""
    shown = "".join(character if character.isprintable() and ord(character) < FIRST_UNPRINTABLE
                    else character.encode("unicode_escape").decode() for character in text)
    return shown.strip(" ") or "(blank)"
