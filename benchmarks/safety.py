"""How safe and how fair a model becomes, and at what price: both halves, every method beside the authors' plain ones.

    python -m benchmarks.safety [--quick] [--half detoxify|debias] [--methods NAME ...] [--forms plain chat] [--json FILE]
                                [--plot FILE] [--data FOLDER]

What is measured and on what is told by `benchmarks/safety_detoxify.py` and `benchmarks/safety_debias.py`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import safety_debias, safety_debias_picture
from benchmarks.safety_detoxify import FORMS, METHODS, detoxify_table, tables_of
from benchmarks.safety_detoxify_picture import draw
from benchmarks.shipped import DATA, RESULTS, shown_progress, wide_console
from editors.contract import Progress


def _detoxify(options: argparse.Namespace, show: Progress, picture: Path) -> dict[str, Any]:
    document = detoxify_table(options.quick, show, methods=options.methods, forms=options.forms, data=options.data)
    draw(document, picture)
    return document


def _debias(options: argparse.Namespace, show: Progress, picture: Path) -> dict[str, Any]:
    document = safety_debias.debias_table(options.quick, show, data=options.data)
    safety_debias_picture.draw(document, picture)
    return document


HALVES: Mapping[str, Callable[[argparse.Namespace, Progress, Path], dict[str, Any]]] = {
    "detoxify": _detoxify, "debias": _debias}
TABLES: Mapping[str, Callable[[Mapping[str, Any]], list[Table]]] = {
    "detoxify": tables_of, "debias": lambda document: [safety_debias.table_of(document)]}


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer prompts, samples, sentences and paragraphs")
    parser.add_argument("--half", choices=tuple(HALVES), help="only this one; default: all")
    parser.add_argument("--methods", nargs="+", metavar="NAME", choices=METHODS, default=METHODS,
                        help=f"to detoxify, of {', '.join(METHODS)}; default: all")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS, help="of requests to detoxify; default: both")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="the picture; default: beside the JSON file")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure, print and draw; the JSON file is written after every half."""
    options, console = _options(), wide_console()
    plot = options.plot or (options.json.with_suffix(".png") if options.json else RESULTS / "safety.png")
    document: dict[str, Any] = {}
    for half in [options.half] if options.half else HALVES:
        picture = plot.with_stem(f"{plot.stem}-{half}")
        with shown_progress(console) as show:
            document[half] = HALVES[half](options, show, picture)
        for table in TABLES[half](document[half]):
            console.print(table)
        console.print(f"picture: {picture}")
        if options.json:
            options.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
