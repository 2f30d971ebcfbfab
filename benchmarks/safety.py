"""How safe and how fair a model becomes, and at what price: both halves, every method beside the authors' plain ones.

    python -m benchmarks.safety [--quick] [--half detoxify|debias] [--methods NAME ...] [--forms plain chat] [--json FILE]
                                [--plot FILE] [--data FOLDER]

What is measured and on what is told by `benchmarks/safety_detoxify.py` and `benchmarks/safety_debias.py`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.safety_detoxify import FORMS, METHODS, detoxify_table, tables_of
from benchmarks.safety_detoxify_picture import draw
from benchmarks.shipped import DATA, RESULTS, shown_progress, wide_console

DEBIAS = "benchmarks.safety_debias"
HALVES = ("detoxify", "debias")


def halves() -> tuple[str, ...]:
    """Those that this checkout has."""
    return HALVES if find_spec(DEBIAS) else HALVES[:1]


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer prompts, samples, sentences and paragraphs")
    parser.add_argument("--half", choices=halves(), help="only this one; default: all")
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
    for half in [options.half] if options.half else halves():
        with shown_progress(console) as show:
            if half == "debias":
                debias = import_module(DEBIAS)
                document[half] = debias.debias_table(options.quick, show, data=options.data)
                console.print(debias.table_of(document[half]))
            else:
                document[half] = detoxify_table(options.quick, show, methods=options.methods, forms=options.forms,
                                                data=options.data)
        if half == "detoxify":
            for table in tables_of(document[half]):
                console.print(table)
            draw(document[half], plot)
        if options.json:
            options.json.write_text(json.dumps(document, indent=1))
    console.print(f"picture: {plot}")


if __name__ == "__main__":
    main()
