"""How the work is shared among processes here, and what a 70B model and a million edits take by arithmetic.

    python -m benchmarks.scaling [--quick] [--workers N ...] [--json FILE] [--plot FILE] [--data FOLDER]

Measured: MEMIT's search for some CounterFact edits and the questions about them, by one process and by Dask workers, CPU
seconds of each process; and whether the results are the same. Not measured: the plan, which is worked out from
`editors/costs.py` for Llama 3.1 70B's shapes and named hardware at an assumed share of its rate (`scaling_plan.py`).
The exit code is 1 where workers come to another result than one process.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from benchmarks.cases import Case, edit_batch
from benchmarks.counterfact import short_case_of
from benchmarks.machine import machine
from benchmarks.scaling_picture import draw
from benchmarks.scaling_plan import EDITS, H100, NODE, PROMPTS, TOKEN_BUDGET, Plan, large_sizes, plans, prospect
from benchmarks.scaling_workers import Shared, read
from benchmarks.shipped import CACHE, DATA, RESULTS, packaged_model, wide_console

FIRST, PLANNED = 250, 512
"""Records before the first were looked at when options were chosen; the plan encodes the lengths of so many."""
ASKED = 128
"""Edits that are asked about, a prompt, a paraphrase and a neighbour each: two batches of questions."""
GPUS = (8, 64, 256)
SAME = 1e-6


def cases_of(data: Path, count: int) -> list[Case]:
    """So many edits of the report part whose prompt holds its subject."""
    records = json.loads((data / "counterfact_short_4000.json").read_text())[FIRST:]
    return [short_case_of(record) for record in records if record["subject"] in record["prompt"]][:count]


def workers_table(readings: Sequence[Shared], edits: int) -> Table:
    """A row for each number of workers."""
    table = Table(title=f"SmolLM2-135M-Instruct: the search for {edits} CounterFact edits by memit, {3 * ASKED} questions")
    for heading in ("workers", "parts", "CPU s of all", "CPU s of the slowest", "times as fast", "wall s, machine shared",
                    "apart from one"):
        table.add_column(heading, justify="right")
    for one in readings:
        table.add_row(str(one.workers), str(one.parts), f"{one.cpu_seconds:.1f}", f"{one.slowest_seconds:.1f}",
                      f"{readings[0].slowest_seconds / one.slowest_seconds:.2f}", f"{one.wall_seconds:.1f}", f"{one.apart:.1e}")
    return table


def plan_table(found: Sequence[Plan]) -> Table:
    """A column for each size of batch."""
    table = Table(title=f"By arithmetic, not run: Llama 3.1 70B, {EDITS:,} edits by memit")
    table.add_column("")
    for one in found:
        table.add_column(f"batches of {one.batch:,}", justify="right")
    for stage in found[0].stages:
        table.add_row(f"{stage}: FLOP, worker hours", *(f"{one.flops[stage]:.1e}  {one.stages[stage]:8.2f}" for one in found))
    table.add_section()
    for count in GPUS:
        table.add_row(f"hours on {count} GPUs", *(f"{one.hours(count):.1f}" for one in found))
    table.add_section()
    for name, label in (("model_bytes", "model, bfloat16"), ("search_bytes", "search, beside the model"),
                        ("writing_bytes", "the last batch's solve, float64"), ("statistics_bytes", "statistics on disk"),
                        ("patch_bytes", "patches and remembered keys on disk")):
        table.add_row(f"{label}, GB", *(f"{getattr(one, name) / 1e9:,.0f}" for one in found))
    table.add_row("GPUs a worker", *(str(one.gpus_a_worker) for one in found))
    table.add_row(f"keys, new and held, whose solve fits one GPU of {NODE}", *(f"{one.most_solved:,}" for one in found))
    return table


def assumptions() -> str:
    """What the plan takes for granted."""
    return (f"{H100.name}: {H100.flops / 1e12:.0f} TFLOP/s dense bfloat16, {H100.reached:.0%} of it reached; "
            f"{H100.double_flops / 1e12:.0f} float64 for the solve, {H100.double_reached:.0%}; "
            f"{H100.memory_used:.0%} of the memory used; a pass of {TOKEN_BUDGET} tokens is bound by arithmetic "
            f"(from {H100.balance:.0f} on). Every release asks {PROMPTS} prompts for each edit that holds, of parent and "
            "candidate. A model split layer by layer keeps one GPU of a worker busy.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, work out, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="half as many edits")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="the picture; default: beside the JSON file")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with counterfact_short_4000.json")
    chosen = parser.parse_args(arguments)
    console = wide_console()
    plot = chosen.plot or (chosen.json.with_suffix(".png") if chosen.json else RESULTS / "scaling.png")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    model, edits = packaged_model(), 64 if chosen.quick else 128
    found = plans(prospect(large_sizes(), model.tokenizer, edit_batch(cases_of(chosen.data, PLANNED), model)))
    with tempfile.TemporaryDirectory(prefix="suture-scaling-") as home:
        readings = read(model, cases_of(chosen.data, edits), cases_of(chosen.data, ASKED), chosen.workers, CACHE / "statistics",
                        Path(home))
    console.print(workers_table(readings, edits))
    console.print(plan_table(found))
    console.print(assumptions(), highlight=False)
    console.print(machine())
    draw(readings, found, GPUS, plot)
    console.print(f"picture: {plot}")
    if chosen.json:
        document: dict[str, Any] = {
            "machine": machine(), "edits": edits, "workers": [asdict(one) for one in readings],
            "plan": [{**asdict(one), "hours": {count: one.hours(count) for count in GPUS}} for one in found],
            "assumed": asdict(H100)}
        chosen.json.write_text(json.dumps(document, indent=1))
    return int(any(one.apart > SAME for one in readings))


if __name__ == "__main__":
    sys.exit(main())
