"""How well the editors edit: CounterFact on the packaged model, with bootstrap intervals.

    python -m benchmarks.quality [--quick] [--json FILE] [--data FOLDER]

Two rows each, unedited and edited: MEMIT writes records 0-49 in one batch; ROME writes 20 records one at a time, those
whose true object is the unedited model's first choice. Options are the shipped calibration, tuned on other records
(50-149). The statistics' corpus and the text whose perplexity is measured have nothing in common.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import editors
from benchmarks.counterfact import Scores, batch_of, known_records, perplexity, read_records, record_scores
from editors.calibration import calibration_for
from editors.contract import Location
from editors.loading import Checkpoint, LoadedModel, load
from editors.packaged import packaged_folder
from editors.patch import Patch, applied

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CACHE = Path("~/.cache/suture").expanduser()
RESAMPLES, SEED = 2000, 0
HELD_OUT_PARAGRAPHS, SINGLE_PARAGRAPHS = 60, 8


@dataclass(frozen=True)
class Outcome:
    """One row of the table: every record's scores, perplexity as a ratio to the unedited model's, seconds of editing."""

    name: str
    scores: list[Scores]
    perplexity_ratio: float
    seconds: float


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean, over records."""
    generator = random.Random(SEED)  # noqa: S311  resampling, not cryptography
    means = sorted(sum(generator.choices(values, k=len(values))) / len(values) for _ in range(RESAMPLES))
    edge = int(RESAMPLES * (1 - level) / 2)
    return means[edge], means[-edge - 1]


def plan(model: LoadedModel, method: str, records: Sequence[dict[str, Any]], progress: Callable[..., None]) -> Patch:
    """The method's patch for the records, with the calibration that ships."""
    calibration = calibration_for(method, model.digest, model.anatomy)
    kind = editors.get(method)
    editor = kind(type(kind().config).from_options(calibration.options))
    location = Location(layers=calibration.layers, positions={}, source="calibration")
    return editor.plan(model, batch_of(records, model), location, CACHE / "statistics", progress)


def batch_outcomes(model: LoadedModel, records: Sequence[dict[str, Any]], texts: Sequence[str],
                   progress: Callable[..., None]) -> list[Outcome]:
    """All records in one MEMIT batch."""
    before, clean = record_scores(model, records), perplexity(model, texts)
    started = time.perf_counter()
    patch = plan(model, "memit", records, progress)
    seconds = time.perf_counter() - started
    with applied(model.model, patch):
        after, ratio = record_scores(model, records), perplexity(model, texts) / clean
    return [Outcome(f"unedited, {len(records)} records", before, 1.0, 0.0),
            Outcome(f"memit, {len(records)} in one batch", after, ratio, seconds)]


def single_outcomes(model: LoadedModel, records: Sequence[dict[str, Any]], texts: Sequence[str],
                    progress: Callable[..., None]) -> list[Outcome]:
    """Each record alone, by ROME; the perplexity is the worst of the edits."""
    before, clean = record_scores(model, records), perplexity(model, texts)
    after, worst, seconds = [], 0.0, 0.0
    for number, record in enumerate(records):
        started = time.perf_counter()
        patch = plan(model, "rome", [record], lambda *_: None)
        seconds += time.perf_counter() - started
        with applied(model.model, patch):
            after += record_scores(model, [record])
            worst = max(worst, perplexity(model, texts) / clean)
        progress("single edits", number + 1, len(records))
    return [Outcome(f"unedited, {len(records)} known facts", before, 1.0, 0.0),
            Outcome(f"rome, {len(records)} edits one by one", after, worst, seconds / len(records))]


def machine() -> str:
    """The processor's name, cores and threads in use."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")] \
        if info.exists() else []
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def table_of(outcomes: Sequence[Outcome]) -> Table:
    """The printed table; each share with its 95% interval."""
    table = Table(title="CounterFact, SmolLM2-135M-Instruct")
    for heading in ("", "success", "paraphrase", "neighbourhood", "first choice", "perplexity", "seconds an edit"):
        table.add_column(heading, justify="right" if heading else "left")
    for outcome in outcomes:
        shares = [_share([astuple(score)[column] for score in outcome.scores]) for column in range(4)]
        per_edit = outcome.seconds / (len(outcome.scores) if outcome.name.startswith("memit") else 1)
        change = f"{100 * (outcome.perplexity_ratio - 1):+.2f}%" if outcome.seconds else "-"
        table.add_row(outcome.name, *shares, change, f"{per_edit:.1f}" if outcome.seconds else "-")
    return table


def document_of(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The same as JSON, with the scores of every record."""
    rows = []
    for outcome in outcomes:
        columns = {entry.name: [getattr(score, entry.name) for score in outcome.scores] for entry in fields(Scores)}
        rows.append({"name": outcome.name, "perplexity_ratio": outcome.perplexity_ratio, "seconds": outcome.seconds,
                     "shares": {name: {"mean": sum(values) / len(values), "interval": interval(values)}
                                for name, values in columns.items()},
                     "records": [asdict(score) for score in outcome.scores]})
    return {"machine": machine(), "torch": torch.__version__, "rows": rows}


def _share(values: Sequence[float]) -> str:
    low, high = interval(values)
    return f"{sum(values) / len(values):.3f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 records a batch, 4 single edits")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with counterfact_0-499.json")
    options = parser.parse_args()
    console = Console()
    model = load(Checkpoint(packaged_folder(CACHE)))
    source = options.data / "counterfact_0-499.json"
    texts = json.loads((options.data / "wikipedia_paragraphs.json").read_text())[-HELD_OUT_PARAGRAPHS:]
    batch = read_records(source, range(10 if options.quick else 50))
    with Progress(console=console, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total or None)
            bars.update(tasks[what], completed=done)

        single = read_records(source, known_records(source, model)[:4 if options.quick else 20])
        outcomes = batch_outcomes(model, batch, texts, show)
        outcomes += single_outcomes(model, single, texts[:SINGLE_PARAGRAPHS], show)
    console.print(table_of(outcomes))
    console.print(machine())
    if options.json:
        options.json.write_text(json.dumps(document_of(outcomes), indent=1))


if __name__ == "__main__":
    main()
