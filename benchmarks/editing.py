"""What an edit costs: CPU seconds, memory and arithmetic, per editor and per number of edits, beside the naive path.

    python -m benchmarks.editing [--quick] [--json FILE] [--plot FILE] [--data FOLDER] [--editors NAME ...]

One thread. Every reading is taken in a process of its own, with the statistics stored (`suture warm`). The naive path
(`benchmarks/naive.py`) searches one request after another, so its time for a batch is that of a sample times the number
of edits, its dense solves counted once; both are scored on that sample. `ratios.rome_1` and `ratios.memit_100` are
naive over engine, in CPU seconds an edit. Arithmetic minimum: the same steps without padding, weights and reads counted once.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.table import Table

import editors
from benchmarks.editing_picture import draw
from benchmarks.editing_reading import Reading, Task, read
from benchmarks.machine import machine
from benchmarks.shipped import DATA, RESULTS, wide_console

SINGLE = ("rome", "finetune")
"""Editors that are measured one edit at a time: a batch is no use for them."""


def tasks(names: Sequence[str], data: Path, *, quick: bool) -> list[Task]:
    """The readings to take, cheap ones first; the naive path on a sample of the same edits."""
    sample = 3 if quick else 10
    counts = (1, 10, 100) if quick else (1, 10, 100, 1000)
    chosen = [Task(name, path, 1, sample, str(data)) for name in names if name in SINGLE
              for path in (("engine", "naive") if name == "rome" else ("engine",))]
    batched = [name for name in names if name not in SINGLE]
    chosen += [Task(name, "engine", count, sample, str(data)) for count in counts for name in batched]
    return [*chosen, Task("memit", "naive", 100, sample, str(data))]


def ratios(readings: Sequence[Reading]) -> dict[str, float]:
    """Naive over engine, CPU seconds an edit."""
    found = {(reading.method, reading.path, reading.count): reading.seconds for reading in readings}
    return {f"{method}_{count}": seconds / found[method, "engine", count]
            for (method, path, count), seconds in found.items() if path == "naive" and (method, "engine", count) in found}


def table_of(readings: Sequence[Reading], model_bytes: int) -> Table:
    """The printed table."""
    table = Table(title="Cost of an edit, SmolLM2-135M-Instruct, CounterFact")
    for heading in ("editor", "edits", "CPU s an edit", "GFLOP an edit", "of minimum", "peak / model", "success", "paraphrase",
                    "neighbourhood"):
        table.add_column(heading, justify="left" if heading == "editor" else "right")
    for reading in sorted(readings, key=lambda one: (one.method, one.path, one.count)):
        name = reading.method if reading.path == "engine" else f"{reading.method}, naive path"
        over = f"{reading.flops / reading.minimum_flops:.2f}" if reading.minimum_flops else "-"
        table.add_row(name, str(reading.count), f"{reading.seconds:.2f}", f"{reading.flops / 1e9:.0f}", over,
                      f"{reading.peak_bytes / model_bytes:.2f}",
                      *(f"{value:.3f}" for value in (reading.success, reading.paraphrase, reading.neighbourhood)))
    return table


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 edits in the naive sample, no batch of 1,000")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="the picture; default: beside the JSON file")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with counterfact_short_4000.json")
    parser.add_argument("--editors", nargs="+", default=list(editors.names()), metavar="NAME")
    options = parser.parse_args()
    console = wide_console()
    plot = options.plot or (options.json.with_suffix(".png") if options.json else RESULTS / "editing.png")
    readings: list[Reading] = []
    planned = tasks(options.editors, options.data, quick=options.quick)
    with console.status("") as status:
        for number, task in enumerate(planned):
            status.update(f"{number + 1} of {len(planned)}: {task.method}, {task.path} path, {task.count} edits")
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                readings.append(pool.submit(read, task).result())
    found = ratios(readings)
    console.print(table_of(readings, readings[0].model_bytes))
    for name, ratio in found.items():
        console.print(f"{name}: the naive path takes {ratio:.1f} times as many CPU seconds")
    console.print(machine())
    draw(readings, plot)
    console.print(f"picture: {plot}")
    if options.json:
        document: dict[str, Any] = {"machine": machine(), "ratios": found, "readings": [asdict(one) for one in readings]}
        options.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
