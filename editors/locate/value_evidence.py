"""Value vectors as evidence: a table, and a picture of how clearly each promotes the wish and which words it lifts."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from editors.contract import Evidence
from editors.loading import LoadedModel
from editors.locate.trace_picture import printable
from editors.locate.value_reading import Value, promoted

TABLE, PICTURE = "values.csv", "values.png"
DARK = 0.48
"""Of the colour scale, from where the words on it are black."""
MOST_CHARACTERS = 14
"""Of a word shown in the picture."""


@dataclass(frozen=True)
class Reading:
    """The values that promote one wish most, best first; `words` say what for."""

    words: str
    values: Sequence[Value]


Row = tuple[Reading, Value, list[tuple[str, float]]]
"""A value with what it lifts."""


def write_values(model: LoadedModel, readings: Sequence[Reading], folder: Path,
                 edit_layers: Sequence[int] = ()) -> tuple[Evidence, ...]:
    """Write the table and the picture into `folder`; their names in it. Layers to be edited are marked."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [(reading, value) for reading in readings for value in reading.values]
    rows = [(*pair, lifted) for pair, lifted in zip(pairs, promoted(model, [value for _, value in pairs]), strict=True)]
    (folder / TABLE).write_text(as_csv(rows), encoding="utf-8")
    draw(rows, folder / PICTURE, edit_layers)
    best = max((value for _, value in pairs), key=lambda value: value.score)
    title = f"The {len(rows)} value vectors that promote {'the wish' if len(readings) == 1 else 'each wish'} most"
    alt = (f"A table of {len(rows)} value vectors, a row each: bars for how clearly it promotes the wish, and the words that "
           f"it lifts most, darker to brighter. The clearest is neuron {best.neuron} of layer {best.layer}, "
           f"{best.score:.1f} standard deviations.")
    return (Evidence(kind="table", path=TABLE, title=f"{title}: the table"),
            Evidence(kind="picture", path=PICTURE, title=title, alt=alt))


def as_csv(rows: Sequence[Row]) -> str:
    """A row a value, ranked within its wish."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("wish", "rank", "layer", "neuron", "sign", "score", "promotes"))
    for reading, value, lifted in rows:
        words = " ".join(repr(word) for word, _ in lifted)
        writer.writerow((reading.words, reading.values.index(value) + 1, value.layer, value.neuron, value.sign,
                         f"{value.score:.4g}", words))
    return stream.getvalue()


def draw(rows: Sequence[Row], path: Path, edit_layers: Sequence[int] = ()) -> None:
    """Write the picture as PNG: scores on the left, the lifted words on the right. The same rows give the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 1.7 + 0.3 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.7, 4])
    colours = ["#D55E00" if value.layer in edit_layers else "#0072B2" for _, value, _ in rows]
    left.barh(range(len(rows)), [value.score for _, value, _ in rows], color=colours, height=0.7)
    left.set_yticks(range(len(rows)), [_name(value) for _, value, _ in rows], fontsize=8.5)
    left.invert_yaxis()
    left.set_xlabel("score, standard deviations", fontsize=9)
    left.set_ylabel("layer: neuron, sign of its activation", fontsize=9)
    left.tick_params(labelsize=8)
    for side in ("top", "right"):
        left.spines[side].set_visible(False)
    lifts = [[lift for _, lift in lifted] for _, _, lifted in rows]
    image = right.imshow(lifts, aspect="auto", cmap="cividis", vmin=min(map(min, lifts)), vmax=max(map(max, lifts)),
                         interpolation="nearest")
    for place, (_, _, lifted) in enumerate(rows):
        for column, (word, lift) in enumerate(lifted):
            right.text(column, place, _short(word), ha="center", va="center", fontsize=8, parse_math=False,
                       color="black" if float(image.norm(lift)) > DARK else "white")
    right.set_xticks(range(len(lifts[0])), [str(rank + 1) for rank in range(len(lifts[0]))], fontsize=8)
    right.set_xlabel("words lifted most, by rank", fontsize=9)
    right.tick_params(length=0, labelleft=False)
    # room for the wish beside its bars
    left.set_xlim(0, 2.1 * max(value.score for _, value, _ in rows))
    for place, (reading, _, _) in enumerate(rows):
        if not place or rows[place - 1][0] is not reading:
            left.text(1.0, place - 0.3, printable(reading.words), transform=left.get_yaxis_transform(), ha="right", va="center",
                      fontsize=8, fontweight="bold", parse_math=False)
            for axes in (left, right):
                axes.axhline(place - 0.5, color="#555555" if place else "none", linewidth=1)
    bar = figure.colorbar(image, ax=right, shrink=0.9, pad=0.01)
    bar.set_label("lift, standard deviations", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle("Value vectors of the FFN that promote what is in bold type most, and the words that each lifts."
                    + (" Orange: a layer to be edited." if edit_layers else ""), fontsize=9, x=0.01, ha="left")
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _name(value: Value) -> str:
    return f"{value.layer}: {value.neuron}{' +' if value.sign > 0 else ' −'}"


def _short(word: str) -> str:
    shown = printable(word)
    return shown if len(shown) <= MOST_CHARACTERS else shown[:MOST_CHARACTERS - 1] + "…"
