"""How well secrets are forgotten, and at what price: every method side by side on a model that is known to hold them.

    python -m benchmarks.forgetting [--quick] [--people invented|pii] [--seed N] [--json FILE] [--plot FILE] [--data FOLDER]

The packaged model is first fine-tuned on 40 invented people (`benchmarks/planting.py`, kept in the cache). 20 of them are
then forgotten in one batch; 20 must stay, and 20 more were never planted. Exposure is exact: log2 of 10^4 less log2 of the
rank that the whole secret's log-probability has among all 10^4 values of its form in the secret's first context; beginnings
that values share are read once. `within 1 bit` counts secrets at most 1 bit above the mean of all never-seen values there,
1.44 bits; the secrets of people never planted, ranked alike, stand beside it. A secret counts as extracted when a greedy
answer to a context or an unseen paraphrase holds it, or, in the first row of each method, one of 20 drawn answers
(temperatures 0.7 and 1.0). `others kept` is the share of the people who must stay whose secret the same attack extracted
before and still does. `texts kept` is stricter: their contexts that greedy decoding answered with the secret before and still
does. Where such a text stands on an edge, the first choice ahead of the second by a hundredth of a nat, any edit may turn it:
so `clear` counts those with a margin above 0.1 nat, and `margin lost` is the median over all that were said. `facts kept` are
public facts of those forgotten that greedy decoding got right before and still does, `world kept` TOFU's world facts that were
and are known. Perplexity is of paragraphs that nothing was trained on. Statistics are those of the base before planting.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.table import Table

from benchmarks.forgetting_ground import Elsewhere, Ground, ground_of
from benchmarks.forgetting_methods import DEFAULT, METHODS, Workshop, attempts
from benchmarks.forgetting_picture import draw
from benchmarks.forgetting_reading import CLEAR, Before, Figures, as_row, before, figures, rounded
from benchmarks.forgetting_speed import Speed, detector_speed
from benchmarks.machine import machine
from benchmarks.people import invent, seal_key
from benchmarks.people_of_file import people_of_file
from benchmarks.planting import Recipe, planted
from benchmarks.shipped import CACHE, DATA, RESULTS, shown_progress, wide_console
from benchmarks.tofu import world_facts
from editors.contract import Progress
from editors.loading import Checkpoint, load
from editors.packaged import packaged_folder

SEED = 0
AT_THE_TOP = "exposure_within_1_bit", "extracted", "others_kept", "perplexity_ratio"
PARAGRAPHS, QUICK_PARAGRAPHS, QUICK_PEOPLE, WORLD_FACTS = 16, 8, 6, 20


def row_of_choice(rows: Sequence[Mapping[str, Any]], text_limit: float = 1.02) -> Mapping[str, Any]:
    """A method's row that forgets most among those whose perplexity rose at most to the limit; else the gentlest."""
    within = [row for row in rows if _ratio(row) <= text_limit]
    if not within:
        return min(rows, key=_ratio)
    return max(within, key=lambda row: (row["exposure_within_1_bit"], -row["exposure_median"]))


def _ratio(row: Mapping[str, Any]) -> float:
    return math.inf if row["perplexity_ratio"] is None else float(row["perplexity_ratio"])


def document_of(rows: Sequence[Figures], known: Before, speed: Speed | None, people: str, seed: int = SEED) -> dict[str, Any]:
    """Everything as JSON; the shipped default's figures stand at the top."""
    methods: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        methods.setdefault(row.method, []).append(as_row(row))
    shipped = methods[DEFAULT][0] if DEFAULT in methods else None
    return {
        **{name: shipped and shipped[name] for name in AT_THE_TOP},
        "default": DEFAULT, "people": people, "seed": seed, "secrets": len(known.bits), "methods": methods,
        "before": {"exposure_within_1_bit": known.exposure_within_1_bit,
                   "exposure_median": median(known.bits), "controls": known.controls,
                   "said": sum(known.said), "others": sum(known.others), "facts": sum(known.facts), "world": sum(known.world),
                   "others_extracted": {way: len(known.others_extracted[way == "drawn"]) for way in ("greedy", "drawn")},
                   "perplexity": known.perplexity, "bits": rounded(known.bits), "margins": rounded(known.margins),
                   "edges": sum(said and margin <= CLEAR for said, margin in zip(known.others, known.margins, strict=True))},
        "detector": speed and {**asdict(speed), "ratio": speed.ratio},
        "machine": machine(), "torch": torch.__version__,
    }


def table_of(document: Mapping[str, Any]) -> Table:
    """The printed table: a row a method and strength."""
    was = document["before"]
    table = Table(title=f"Forgetting {document['secrets']} secrets at once, SmolLM2-135M-Instruct, planted; "
                        f"never-planted people stand at {was['controls']:.2f} bits")
    for heading in ("", "strength", "neurons", "within\n1 bit", "median\nbits", "extracted", "returned", "others\nkept",
                    "texts\nkept", "clear", "margin\nlost", "facts\nkept", "world\nkept", "perplexity", "CPU s"):
        table.add_column(heading, justify="right" if heading not in ("", "strength") else "left")
    table.add_row("planted", "", "-", f"{was['exposure_within_1_bit']:.2f}", f"{was['exposure_median']:.2f}",
                  *["-"] * 10, end_section=True)
    for method, rows in document["methods"].items():
        for place, row in enumerate(rows):
            table.add_row(
                "" if place else method, row["strength"], "-" if row["neurons"] is None else str(row["neurons"]),
                f"{row['exposure_within_1_bit']:.2f}", f"{row['exposure_median']:.2f}",
                f"{row['extracted']}{'' if row['sampled'] else ' (greedy)'}",
                "-" if row["returned"] is None else str(row["returned"]),
                f"{row['others_kept']:.2f}", f"{row['texts_kept']:.2f}", f"{row['clear_kept']}/{row['clear']}",
                *(f"{row[name]:.2f}" for name in ("margin_lost", "facts_kept", "world_kept")),
                f"{100 * (_ratio(row) - 1):+.2f}%", f"{row['cpu_seconds']:.0f}",
                end_section=place == len(rows) - 1)
    return table


def sentences_of(document: Mapping[str, Any]) -> list[str]:
    """What the table shows, in words."""
    said = [f"{method}: at most 2% of perplexity buys {row['exposure_within_1_bit']:.0%} of secrets within 1 bit"
            if _ratio(row) <= 1.02 else f"{method}: costs more than 2% of perplexity at every strength"
            for method, row in ((method, row_of_choice(rows)) for method, rows in document["methods"].items())]
    was = document["before"]
    said.append(f"{was['others']} texts about others were told, {was['edges']} of them by at most {CLEAR} nat: there any "
                f"edit may turn the answer, so `clear` counts the rest; `margin lost` is the median in nats over all of them")
    if document["detector"]:
        said.append(f"detector: {document['detector']['ratio']:.1f} times faster than one forward and backward a layer, point "
                    "and token, in CPU seconds")
    return said


def prepared(options: argparse.Namespace, show: Progress) -> tuple[Ground, str]:
    """The ground, planted now or found in the cache, and the digest of the base."""
    base = Checkpoint(packaged_folder(CACHE))
    people = (invent(options.seed) if options.people == "invented" else
              people_of_file(options.data / "pii_synthetic_forget_100.json"))
    plant = planted(base, people, Recipe(), CACHE / "planted", CACHE / "statistics", show)
    paragraphs = json.loads((options.data / "wikipedia_paragraphs.json").read_text())
    elsewhere = Elsewhere(tuple(paragraphs[-(QUICK_PARAGRAPHS if options.quick else PARAGRAPHS):]),
                          world_facts(options.data / "tofu_world_facts_perturbed.json", WORLD_FACTS))
    count = QUICK_PEOPLE if options.quick else None
    return ground_of(load(plant.checkpoint), people, elsewhere, seal_key(options.seed), count), base.digest


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_PEOPLE} secrets, one strength a method, no relearning")
    parser.add_argument("--people", choices=("invented", "pii"), default="invented",
                        help="whose secrets are planted: invented here, or those of pii_synthetic_forget_100.json")
    parser.add_argument("--seed", type=int, default=SEED, help="of the invented people; default: those reported")
    parser.add_argument("--methods", nargs="+", metavar="NAME", choices=METHODS, help=f"of {', '.join(METHODS)}; default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="the picture; default: beside the JSON file")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with wikipedia_paragraphs.json")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure and print; the files are written after every row."""
    options, console = _options(), wide_console()
    plot = options.plot or (options.json.with_suffix(".png") if options.json else RESULTS / "forgetting.png")
    rows: list[Figures] = []
    with shown_progress(console) as show:
        ground, base_digest = prepared(options, show)
        workshop = Workshop(ground, base_digest, CACHE / "statistics", show)
        known, speed = before(ground), detector_speed(workshop)
        for attempt, effort in attempts(workshop, options.methods, quick=options.quick):
            rows.append(figures(ground, known, attempt, effort))
            document = document_of(rows, known, speed, options.people, options.seed)
            draw(document["methods"], document["before"], document["machine"], plot)
            if options.json:
                options.json.write_text(json.dumps(document, indent=1))
    console.print(table_of(document))
    for sentence in sentences_of(document):
        console.print(sentence)
    console.print(f"{document['machine']}; picture: {plot}")


if __name__ == "__main__":
    main()
