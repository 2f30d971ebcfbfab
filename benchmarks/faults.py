"""What faults leave behind: processes killed, connections cut, disks full, bytes rotten, promotions raced.

    python -m benchmarks.faults [--quick] [--kind KIND ...] [--json FILE]

Every case lays out a world (a home, a real S3 server, a tiny model), lets one thing go wrong at one place in one of the
product's commands, and runs the same command again. It must finish, what was finished must not be made again, every channel
must point to a release that can be pulled whole, the ledger must tell every move once, and rotten bytes must be named before
they are used. `--quick` has each kind once or twice. The exit code is 1 where anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.faults_cases import FAULTS, Case
from benchmarks.faults_commands import Command, commands, lay_out
from benchmarks.faults_disk import full_disks
from benchmarks.faults_kills import kills
from benchmarks.faults_races import races
from benchmarks.faults_rot import rot
from benchmarks.faults_wire import wires
from benchmarks.faults_world import World, world
from benchmarks.machine import machine
from benchmarks.shipped import wide_console

Kind = Callable[..., Iterator[Case]]
KINDS: dict[str, Kind] = {"kill": kills, "wire": wires, "full disk": full_disks, "rot": rot, "race": races}
"""By the name that `--kind` takes; each is given the world, its commands and whether a few cases do."""


def run(root: Path, kinds: Sequence[str], console: Console, *, quick: bool) -> list[Case]:
    """Every case of some kinds."""
    found: list[Case] = []
    with world(root) as here:
        made = commands(here, lay_out(here))
        for kind in kinds:
            found += _told(KINDS[kind](here, made, quick=quick), console)
    return found


def summary(cases: Sequence[Case]) -> dict[str, Any]:
    """The document of `--json`."""
    return {
        "cases": len(cases), **{fault.replace(" ", "_"): sum(case.has(fault) for case in cases) for fault in FAULTS},
        "wrong": sum(bool(case.wrong) for case in cases),
        "kinds": {kind: {"cases": len(group), "wrong": sum(bool(case.wrong) for case in group)}
                  for kind, group in _by_kind(cases).items()},
        "cpu_seconds": round(_cpu_seconds(), 1), "machine": machine(),
        "failures": [{"kind": case.kind, "command": case.command, "where": case.where, "wrong": list(case.wrong)}
                     for case in cases if case.wrong]}


def table_of(cases: Sequence[Case]) -> Table:
    """A row for each kind of fault and command."""
    table = Table(title="faults, each followed by the same command again")
    table.add_column("fault")
    table.add_column("command")
    for name in ("cases", *FAULTS, "CPU s"):
        table.add_column(name, justify="right")
    rows: dict[tuple[str, str], list[Case]] = defaultdict(list)
    for case in cases:
        rows[case.kind, case.command].append(case)
    for (kind, command), group in rows.items():
        table.add_row(kind, command, *_figures(group))
    table.add_section()
    table.add_row("all", "", *_figures(cases))
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write; 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="a few cases of each kind")
    parser.add_argument("--kind", nargs="+", choices=sorted(KINDS), default=list(KINDS), help="these kinds only")
    parser.add_argument("--json", type=Path, help="write the result here")
    chosen = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    console = wide_console()
    root = Path(tempfile.mkdtemp(prefix="suture-faults-"))
    began = time.monotonic()
    try:
        cases = run(root, chosen.kind, console, quick=chosen.quick)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    document = summary(cases)
    console.print(table_of(cases))
    console.print(f"{document['cases']} cases, {document['wrong']} wrong; lost {document['lost']}, torn {document['torn']}; "
                  f"{document['cpu_seconds']} CPU seconds in {time.monotonic() - began:.0f} s; {document['machine']}")
    if chosen.json:
        chosen.json.write_text(json.dumps(document, indent=1))
    return int(bool(document["wrong"]))


def _told(cases: Iterable[Case], console: Console) -> Iterator[Case]:
    for case in cases:
        for one in case.wrong:
            console.print(f"{case.kind}: {case.command}: {case.where}: {one}", markup=False, highlight=False)
        yield case


def _by_kind(cases: Sequence[Case]) -> Mapping[str, list[Case]]:
    found: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        found[case.kind].append(case)
    return found


def _figures(group: Sequence[Case]) -> list[str]:
    counts = [str(sum(case.has(fault) for case in group)) for fault in FAULTS]
    return [str(len(group)), *counts, f"{sum(case.cpu_seconds for case in group):.1f}"]


def _cpu_seconds() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


__all__ = ["Command", "World", "main", "run", "summary", "table_of"]

if __name__ == "__main__":
    sys.exit(main())
