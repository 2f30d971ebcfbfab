"""How much faster a causal trace is than the plain way, side by side in one run, and how far their numbers differ.

    python -m benchmarks.locating [--quick] [--json FILE]

Every token, layer and kind of a ten-token prompt is traced on the packaged model, the naive way by a whole run for each
cell (`benchmarks/locating_naive.py`). Severed cells and the control are traced as they ship, at the two sites; the control
has no naive counterpart and counts against us. CPU seconds; FLOPs are counted on the operators that ran.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.locating_naive import NaiveTrace
from benchmarks.machine import machine
from benchmarks.shipped import packaged_model, shown_progress, wide_console
from editors.contract import Progress, UpdateRequest, silent
from editors.loading import LoadedModel
from editors.locate.causal_trace import TraceConfig, TraceResult, corrupt, trace

FACT = UpdateRequest(id="eiffel", prompt="{} is located in the city of", subject="The Eiffel Tower", target="Rome")
ALL_TOKENS = 512
QUICK_STRIDE = 6
COUNTED = TraceConfig(kinds=("state", "mlp", "attention"), noise_samples=1, token_limit=ALL_TOKENS, layer_stride=QUICK_STRIDE)
"""What FLOPs are counted on: counting slows a run down."""


def compare(model: LoadedModel, request: UpdateRequest, config: TraceConfig, progress: Progress = silent) -> dict[str, Any]:
    """Seconds of both, their ratio, and the largest difference of any cell and draw."""
    began = time.process_time()
    result = trace(model, [request], config)
    seconds = time.process_time() - began
    began = time.process_time()
    differences = _naive(model, result, config, progress)
    naive_seconds = time.process_time() - began
    prompt = result.traces[0].prompt
    return {"tokens": len(prompt.ids), "layers": len(result.layers), "draws": config.noise_samples, "cells": len(differences),
            "seconds": seconds, "naive_seconds": naive_seconds, "ratio": naive_seconds / seconds,
            "max_difference": max(differences)}


def flop_ratio(model: LoadedModel, request: UpdateRequest, config: TraceConfig = COUNTED) -> float:
    """How many times the FLOPs the plain way takes, for the same cells."""
    with FlopCounterMode(display=False) as ours:
        result = trace(model, [request], config)
    with FlopCounterMode(display=False) as naive:
        _naive(model, result, config, silent)
    return naive.get_total_flops() / ours.get_total_flops()


@torch.inference_mode()
def _naive(model: LoadedModel, result: TraceResult, config: TraceConfig, progress: Progress) -> list[float]:
    """By how much each cell of the result differs from a whole run of its own."""
    traced = result.traces[0]
    embeddings = model.model.get_submodule(model.anatomy.embedding)(torch.tensor([traced.prompt.ids]))
    naive = NaiveTrace(model, traced.prompt, corrupt(embeddings, traced.prompt, result.noise, config), config.window)
    cells = [(kind, row, position, column, layer) for kind in config.kinds
             for row, position in enumerate(traced.prompt.positions_of(kind)) for column, layer in enumerate(result.layers)]
    differences = []
    for number, (kind, row, position, column, layer) in enumerate(cells):
        expected = naive.effect(kind, layer, position)
        differences.append(float((traced.draws[kind][row, column] - expected).abs().max()))
        progress("the plain way", number + 1, len(cells))
    return differences


def table_of(document: dict[str, Any]) -> Table:
    """The comparison in one row each."""
    table = Table(title=f"A causal trace of {document['tokens']} tokens x {document['layers']} layers, {document['cells']} "
                        f"cells of {document['draws']} draws; {document['machine']}", title_justify="left")
    for name in ("", "CPU seconds", "times ours", "FLOPs, times ours", "largest difference"):
        table.add_column(name, justify="left" if not name else "right")
    table.add_row("suture", f"{document['seconds']:.1f}", "1", "1", "")
    table.add_row("a whole run for each cell", f"{document['naive_seconds']:.1f}", f"{document['ratio']:.1f}",
                  f"{document['flop_ratio']:.1f}", f"{document['max_difference']:.1e}")
    return table


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"every {QUICK_STRIDE}th layer and one noise draw")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    return parser.parse_args(arguments)


def main() -> None:
    """Trace both ways, print, and write the numbers."""
    options, console = _options(), wide_console()
    config = TraceConfig(token_limit=ALL_TOKENS, layer_stride=QUICK_STRIDE if options.quick else 1,
                         noise_samples=1 if options.quick else TraceConfig().noise_samples)
    model = packaged_model()
    with shown_progress(console) as show:
        document = {"machine": machine(), "quick": options.quick, **compare(model, FACT, config, show),
                    "flop_ratio": flop_ratio(model, FACT)}
    console.print(table_of(document))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
