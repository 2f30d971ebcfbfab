"""How well the editors edit: CounterFact and zsRE on the packaged model, with bootstrap intervals.

    python -m benchmarks.quality [--quick] [--editors NAME ...] [--json FILE] [--plot FILE] [--data FOLDER]

Editors of batches write records 0-49 of each data set in one batch. ROME and fine-tuning write 20 records one at a time:
of CounterFact those whose true object is the unedited model's first choice, of zsRE the first. Every row stands beside the
unedited model's on the same records; intervals are percentile bootstrap over records, those of a change paired.
`said` is free generation: whether the greedy answer begins with the new one and a word ends there (first 20 records).
Options are the shipped calibration, tuned on other CounterFact records (50-149) and not on zsRE. The statistics' corpus and
the text whose perplexity is measured have nothing in common. CPU seconds are an edit's; MiB is the most that a plan took
above the loaded model. Perplexity and memory of single edits are those of the worst.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.table import Table

import editors
from benchmarks.answers import perplexity
from benchmarks.cases import Dataset, Scores
from benchmarks.counterfact import case_of, case_scores, known_records, read_records
from benchmarks.intervals import interval, mean, paired_interval
from benchmarks.machine import machine
from benchmarks.measured import Took, measured
from benchmarks.outcomes import Outcome, document_of
from benchmarks.quality_picture import draw
from benchmarks.said import said
from benchmarks.shipped import CACHE, DATA, HELD_OUT_PARAGRAPHS, RESULTS, packaged_model, plan, shown_progress, wide_console
from benchmarks.zsre import zsre
from editors.contract import Progress, silent
from editors.loading import LoadedModel
from editors.patch import applied

ONE_AT_A_TIME = ("rome", "finetune")
SAID, SINGLE_PARAGRAPHS, QUICK_PARAGRAPHS = 20, 8, 12
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class PlainText:
    """Paragraphs that an edit must leave readable, and their perplexity under the unedited model."""

    paragraphs: tuple[str, ...]
    unedited: float

    def ratio(self, model: LoadedModel) -> float:
        """The perplexity as the model is now, as a ratio to the unedited one's."""
        return perplexity(model, self.paragraphs) / self.unedited


@dataclass(frozen=True)
class Bench:
    """A data set: the cases of the batches and of the single edits, and the text that is read after each of them."""

    batch: Dataset
    single: Dataset
    batch_text: PlainText
    single_text: PlainText


@dataclass(frozen=True)
class Workshop:
    """The unedited model, the store of second moments, and who is told how far the work is."""

    model: LoadedModel
    statistics: Path
    show: Progress = silent

    def unedited(self, data: Dataset) -> Outcome:
        """The row that the others stand beside."""
        return Outcome(data.name, "unedited", f"{len(data.cases)} records", data.score(self.model, data.cases),
                       said(self.model, data.cases[:SAID]))

    def batch(self, method: str, data: Dataset, text: PlainText) -> Outcome:
        """All cases in one batch."""
        count = len(data.cases)
        with measured() as took:
            patch = plan(self.model, method, data.cases, self.statistics, self.show)
        with applied(self.model.model, patch):
            return Outcome(data.name, method, f"{count} in one batch", data.score(self.model, data.cases),
                           said(self.model, data.cases[:SAID]), text.ratio(self.model),
                           took.seconds / count, took.cpu_seconds / count, took.grown_bytes)

    def single(self, method: str, data: Dataset, text: PlainText) -> Outcome:
        """Each case alone; perplexity and memory are the worst of the edits."""
        scores: list[Scores] = []
        answers: list[float] = []
        ratios: list[float] = []
        costs: list[Took] = []
        count = len(data.cases)
        for number, case in enumerate(data.cases):
            with measured() as took:
                patch = plan(self.model, method, [case], self.statistics)
            costs.append(took)
            with applied(self.model.model, patch):
                scores += data.score(self.model, [case])
                answers += said(self.model, [case]) if number < SAID else []
                ratios.append(text.ratio(self.model))
            self.show(f"{method}, single edits on {data.name}", number + 1, count)
        return Outcome(data.name, method, f"{count} one by one", scores, answers, max(ratios),
                       mean([took.seconds for took in costs]), mean([took.cpu_seconds for took in costs]),
                       max(took.grown_bytes for took in costs))


def benches(model: LoadedModel, data: Path, *, quick: bool) -> list[Bench]:
    """Both data sets; `model` is the unedited one."""
    source, questions = data / "counterfact_0-499.json", data / "zsre_700.json"
    batch, single = (10, 4) if quick else (50, 20)
    paragraphs = json.loads((data / "wikipedia_paragraphs.json").read_text())[-HELD_OUT_PARAGRAPHS:]
    many, few = (PlainText(chosen, perplexity(model, chosen))
                 for chosen in (tuple(paragraphs[:QUICK_PARAGRAPHS if quick else None]), tuple(paragraphs[:SINGLE_PARAGRAPHS])))

    def counterfact(numbers: Sequence[int]) -> Dataset:
        return Dataset("CounterFact", tuple(case_of(record) for record in read_records(source, numbers)), case_scores)

    return [Bench(counterfact(range(batch)), counterfact(known_records(source, model, single)), many, few),
            Bench(zsre(questions, range(batch), model), zsre(questions, range(single), model), many, few)]


def outcomes_of(workshop: Workshop, bench: Bench, methods: Sequence[str]) -> Iterator[Outcome]:
    """One data set's rows: the batches beside their unedited row, then the single edits beside theirs."""
    batches = [method for method in methods if method not in ONE_AT_A_TIME]
    singles = [method for method in methods if method in ONE_AT_A_TIME]
    if batches:
        yield workshop.unedited(bench.batch)
        for method in batches:
            yield workshop.batch(method, bench.batch, bench.batch_text)
    if singles:
        yield workshop.unedited(bench.single)
        for method in singles:
            yield workshop.single(method, bench.single, bench.single_text)


def tables_of(outcomes: Sequence[Outcome]) -> list[Table]:
    """A printed table a data set; each share with its 95% interval, the neighbourhood's change with its paired one."""
    tables: dict[str, Table] = {}
    beside = outcomes[0]
    for place, outcome in enumerate(outcomes):
        beside = outcome if outcome.is_unedited else beside
        table = tables.setdefault(outcome.dataset, _table(outcome.dataset))
        success, paraphrase, forced = (_share(outcome.column(name)) for name in ("success", "paraphrase", "teacher_forced"))
        kept = outcome.column("neighbourhood")
        costs = ("-", "-", "-") if outcome.is_unedited else (
            f"{100 * (outcome.perplexity_ratio - 1):+.2f}%", f"{outcome.cpu_seconds:.1f}",
            f"{outcome.grown_bytes / MEBIBYTE:.0f}")
        change = "-" if outcome.is_unedited else _change(kept, beside.column("neighbourhood"))
        ends = place + 1 < len(outcomes) and outcomes[place + 1].is_unedited
        table.add_row(outcome.title, success, paraphrase, forced, f"{mean(outcome.said):.2f}", f"{mean(kept):.3f}", change,
                      *costs, end_section=ends)
    return list(tables.values())


def _table(dataset: str) -> Table:
    table = Table(title=f"{dataset}, SmolLM2-135M-Instruct, with 95% bootstrap intervals")
    for heading in ("", "success", "paraphrase", "teacher-forced", "said", "neighbourhood", "its change", "perplexity", "CPU s",
                    "MiB"):
        table.add_column(heading, justify="right" if heading else "left")
    return table


def _share(values: Sequence[float]) -> str:
    low, high = interval(values)
    return f"{mean(values):.3f} [{low:.2f}, {high:.2f}]"


def _change(values: Sequence[float], before: Sequence[float]) -> str:
    low, high = paired_interval(values, before)
    return f"{mean(values) - mean(before):+.3f} [{low:+.2f}, {high:+.2f}]"


def main() -> None:
    """Measure and print; the files are written after each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 records a batch, 4 single edits")
    parser.add_argument("--editors", nargs="+", metavar="NAME", choices=editors.names(), default=editors.names(),
                        help="default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="the picture; default: beside the JSON file")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with counterfact_0-499.json and zsre_700.json")
    options, console = parser.parse_args(), wide_console()
    plot = options.plot or (options.json.with_suffix(".png") if options.json else RESULTS / "quality.png")
    model = packaged_model()
    outcomes: list[Outcome] = []
    with shown_progress(console) as show:
        workshop = Workshop(model, CACHE / "statistics", show)
        for bench in benches(model, options.data, quick=options.quick):
            for outcome in outcomes_of(workshop, bench, options.editors):
                outcomes.append(outcome)
                draw(outcomes, machine(), plot)
                if options.json:
                    document = {"machine": machine(), "torch": torch.__version__, "rows": document_of(outcomes)}
                    options.json.write_text(json.dumps(document, indent=1))
    for table in tables_of(outcomes):
        console.print(table)
    console.print(f"{machine()}; picture: {plot}")


if __name__ == "__main__":
    main()
