"""Which text an edit is told not to disturb: the model's own, which ships, beside paragraphs of Wikipedia.

    python -m benchmarks.corpora [--quick] [--json FILE] [--data FOLDER]

One batch of CounterFact records (of `counterfact_short_4000.json` in their order) by MEMIT with its shipped options, once with
the second moments of each text, as many tokens of either. The paragraphs whose perplexity is measured are others, but they are
Wikipedia's as well: this flatters that text.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.table import Table

from benchmarks.answers import perplexity
from benchmarks.cases import Case, Scores, edit_batch
from benchmarks.counterfact import case_scores, read_records, short_case_of
from benchmarks.intervals import mean, paired_interval
from benchmarks.machine import machine
from benchmarks.shipped import CACHE, DATA, HELD_OUT_PARAGRAPHS, packaged_model, shown_progress, wide_console
from editors.calibration import calibration_for
from editors.contract import Location, Progress
from editors.corpus import default_corpus
from editors.loading import LoadedModel
from editors.memit import Memit
from editors.moments import Corpus, corpus_of_texts
from editors.patch import applied

METHOD, EDITS, QUICK_EDITS, QUICK_PARAGRAPHS = "memit", 100, 10, 12


@dataclass(frozen=True)
class Row:
    """What the batch did with one text's moments, beside the unedited model."""

    corpus: str
    tokens: int
    success: float
    paraphrase: float
    neighbourhood: float
    neighbourhood_change: float
    interval: tuple[float, float]
    """95%, paired bootstrap over the records."""
    perplexity_ratio: float


@dataclass(frozen=True)
class Bench:
    """The edits, the text that must stay readable, and what the unedited model makes of both."""

    model: LoadedModel
    cases: tuple[Case, ...]
    held_out: tuple[str, ...]
    scores: list[Scores]
    perplexity: float

    def row(self, corpus: Corpus, progress: Progress) -> Row:
        """The batch with this text's moments; the model is its old self afterwards."""
        batch = edit_batch(self.cases, self.model)
        calibration = calibration_for(METHOD, batch.base_digest, self.model.anatomy)
        editor = Memit(Memit.from_options(calibration.options).config, corpus)
        location = Location(layers=calibration.layers, positions={}, source="calibration")
        patch = editor.plan(self.model, batch, location, CACHE / "statistics", progress)
        with applied(self.model.model, patch):
            scores = case_scores(self.model, self.cases)
            ratio = perplexity(self.model, self.held_out) / self.perplexity
        kept, before = ([score.neighbourhood for score in of] for of in (scores, self.scores))
        return Row(corpus.name, corpus.tokens, mean([score.success for score in scores]),
                   mean([score.paraphrase for score in scores]), mean(kept), mean(kept) - mean(before),
                   paired_interval(kept, before), ratio)


def bench_of(model: LoadedModel, data: Path, paragraphs: Sequence[str], *, quick: bool) -> Bench:
    """The edits and the last paragraphs, measured on the unedited model."""
    records = read_records(data / "counterfact_short_4000.json", range(QUICK_EDITS if quick else EDITS))
    cases = tuple(short_case_of(record) for record in records)
    held_out = tuple(paragraphs[-HELD_OUT_PARAGRAPHS:][:QUICK_PARAGRAPHS if quick else None])
    return Bench(model, cases, held_out, case_scores(model, cases), perplexity(model, held_out))


def table_of(rows: Sequence[Row], bench: Bench) -> Table:
    """The printed table."""
    table = Table(title=f"{len(bench.cases)} CounterFact edits in one batch of {METHOD}, SmolLM2-135M-Instruct")
    for heading in ("moments of", "tokens", "success", "paraphrase", "neighbourhood", "its change", "perplexity"):
        table.add_column(heading, justify="left" if heading == "moments of" else "right")
    for row in rows:
        low, high = row.interval
        table.add_row(row.corpus, str(row.tokens), f"{row.success:.3f}", f"{row.paraphrase:.3f}", f"{row.neighbourhood:.3f}",
                      f"{row.neighbourhood_change:+.3f} [{low:+.2f}, {high:+.2f}]", f"{100 * (row.perplexity_ratio - 1):+.2f}%")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_EDITS} edits, fewer paragraphs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the records and the paragraphs")
    options, console = parser.parse_args(), wide_console()
    model = packaged_model()
    paragraphs = json.loads((options.data / "wikipedia_paragraphs.json").read_text())
    with shown_progress(console) as show:
        bench = bench_of(model, options.data, paragraphs, quick=options.quick)
        own = default_corpus(model, model.digest, CACHE / "statistics", show)
        encyclopedia = corpus_of_texts("paragraphs of Wikipedia", paragraphs[:-HELD_OUT_PARAGRAPHS], model, own.tokens)
        rows = [bench.row(corpus, show) for corpus in (own, encyclopedia)]
    console.print(table_of(rows, bench))
    console.print(machine())
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "torch": torch.__version__,
                                            "rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
