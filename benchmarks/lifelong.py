"""A thousand edits one after another on one model: what is left of all of them, of their neighbours and of plain text.

    python -m benchmarks.lifelong [--quick] [--editors NAME ...] [--one-at-a-time NAME ...] [--json FILE] [--plot FILE]

Records 0-999 of `counterfact_short_4000.json` in their order, in batches of 100 (cut at the points) and, for editors that
are fast enough, one at a time. Every plan is given the patches before it. After 1, 10, 100, 300 and 1000 edits all edits
so far are asked again, with their paraphrases and neighbours, and the held-out paragraphs are read. Options are the
shipped calibration. A run that was cut off goes on where it stood as long as edits, options and code are the same.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

import editors
from benchmarks.cases import Scores
from benchmarks.counterfact import read_records, short_case_of
from benchmarks.intervals import mean
from benchmarks.journal import Journal
from benchmarks.lifelong_picture import draw
from benchmarks.machine import machine
from benchmarks.shipped import CACHE, DATA, HELD_OUT_PARAGRAPHS, RESULTS, packaged_model, shown_progress, wide_console
from benchmarks.sources import method_sources
from benchmarks.stream import Arm, Course, Unedited, run, unedited
from benchmarks.targets import TARGETS, breaks_at, verdicts
from editors.calibration import calibration_for
from editors.digest import digest_document
from editors.loading import LoadedModel

POINTS, BATCH = (1, 10, 100, 300, 1000), 100
QUICK_POINTS, QUICK_BATCH, QUICK_PARAGRAPHS = (1, 10, 20), 10, 12
FAST_ENOUGH = ("ultraedit", "rome")
"""Editors that are by default also given one edit at a time."""


def course_of(data: Path, *, quick: bool) -> Course:
    """The edits, the points and the text."""
    points = QUICK_POINTS if quick else POINTS
    records = read_records(data / "counterfact_short_4000.json", range(points[-1]))
    paragraphs = json.loads((data / "wikipedia_paragraphs.json").read_text())[-HELD_OUT_PARAGRAPHS:]
    texts = paragraphs[:QUICK_PARAGRAPHS] if quick else paragraphs
    return Course(tuple(short_case_of(record) for record in records), points, tuple(texts))


def journal_of(arm: Arm, course: Course, model: LoadedModel, folder: Path) -> Journal:
    """The arm's journal, named by everything that its numbers depend on."""
    calibration = calibration_for(arm.method, model.digest, model.anatomy)
    digest = digest_document({
        "arm": asdict(arm), "course": asdict(course), "base": model.digest, "torch": torch.__version__,
        "layers": calibration.layers, "options": dict(calibration.options),
        "code": method_sources(arm.method, besides=("benchmarks.stream",))})
    return Journal(folder / f"{arm.method}-{arm.size}-{digest[:12]}")


def unedited_of(model: LoadedModel, course: Course, folder: Path) -> Unedited:
    """The base's scores, measured once for a course."""
    digest = digest_document({"course": asdict(course), "base": model.digest})
    path = folder / f"unedited-{digest[:12]}.json"
    if path.exists():
        content = json.loads(path.read_text())
        return Unedited([Scores(**entry) for entry in content["scores"]], content["perplexity"])
    base = unedited(model, course)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(base)))
    return base


def document_of(journals: Mapping[str, Journal], course: Course, base: Unedited) -> dict[str, Any]:
    """Everything as JSON."""
    arms = {name: journal.points for name, journal in journals.items()}
    halted = {name: journal.edits if journal.stopped else None for name, journal in journals.items()}
    return {
        "machine": machine(), "torch": torch.__version__, "edits": course.points[-1],
        "unedited": {"perplexity": base.perplexity, **{
            name: mean([getattr(score, name) for score in base.scores]) for name in Scores.__dataclass_fields__}},
        "editors": arms,
        "targets": {target.figure: {"limit": target.limit, "reached": {
            name: verdicts(points, course.points[-1], halted[name])[target.figure] for name, points in arms.items()}}
            for target in TARGETS},
        "breaks_at": {name: {target.figure: breaks_at(target, points, halted[name]) for target in TARGETS}
                      for name, points in arms.items()},
        "stopped": {name: journal.stopped for name, journal in journals.items()},
        "peak_bytes": {name: max((batch["peak_bytes"] for batch in journal.batches), default=0)
                       for name, journal in journals.items()},
    }


def table_of(document: Mapping[str, Any]) -> Table:
    """The printed table: a row a point, what misses its target marked."""
    table = Table(title=f"{document['edits']} edits in a row, CounterFact, SmolLM2-135M-Instruct; * misses the target")
    for heading in ("", "edits", "success", "teacher-forced", "paraphrase", "neighbourhood lost", "perplexity",
                    "largest change", "CPU s an edit"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, points in document["editors"].items():
        for place, point in enumerate(points):
            marks = {target.figure: "" if target.is_met(point) else "*" for target in TARGETS}
            ratio = point["perplexity_ratio"]
            table.add_row(
                "" if place else name, str(point["edits"]), f"{point['success']:.3f}{marks['success']}",
                f"{point['teacher_forced']:.3f}{marks['teacher_forced']}", f"{point['paraphrase']:.3f}",
                f"{point['neighbourhood_drop']:+.3f}{marks['neighbourhood_drop']}",
                (f"{100 * (ratio - 1):+.2f}%" if ratio is not None else "not finite") + marks["perplexity_ratio"],
                f"{max(point['update_norms'].values(), default=0):.3f}", f"{point['cpu_seconds_an_edit']:.2f}",
                end_section=place == len(points) - 1)
    return table


def sentences_of(document: Mapping[str, Any]) -> list[str]:
    """Where each editor breaks, in words."""
    sentences = []
    for name, breaks in document["breaks_at"].items():
        missed = [f"{figure.replace('_', ' ')} at {edits}" for figure, edits in breaks.items() if edits is not None]
        stopped = document["stopped"][name]
        sentences.append(f"{name}: " + (f"misses {', '.join(missed)} edits" if missed else "keeps every target")
                         + (f"; stopped {stopped}" if stopped else ""))
    return sentences


def _arms(options: argparse.Namespace) -> list[Arm]:
    size = QUICK_BATCH if options.quick else BATCH
    batches = editors.names() if options.editors is None else options.editors
    singles = [name for name in FAST_ENOUGH if name in batches] if options.one_at_a_time is None else options.one_at_a_time
    return [*(Arm(name, size) for name in batches), *(Arm(name, 1) for name in singles)]


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 edits in batches of 10, fewer paragraphs")
    parser.add_argument("--editors", nargs="*", metavar="NAME", choices=editors.names(), help="in batches; default: all")
    parser.add_argument("--one-at-a-time", nargs="*", metavar="NAME", choices=editors.names(),
                        help=f"one edit at a time; default: those of {', '.join(FAST_ENOUGH)} that are run in batches")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="the picture; default: beside the JSON file")
    parser.add_argument("--checkpoint", type=Path, metavar="FOLDER", default=RESULTS / "lifelong",
                        help="what is done so far; delete it to begin anew")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with counterfact_short_4000.json")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure and print; the files are written after every arm."""
    options, console = _options(), wide_console()
    plot = options.plot or (options.json.with_suffix(".png") if options.json else RESULTS / "lifelong.png")
    model, course = packaged_model(), course_of(options.data, quick=options.quick)
    journals: dict[str, Journal] = {}
    with shown_progress(console) as show:
        base = unedited_of(model, course, options.checkpoint)
        for arm in _arms(options):
            journals[arm.name] = journal_of(arm, course, model, options.checkpoint)
            run(model, arm, course, base, journals[arm.name], CACHE / "statistics", show)
            document = document_of(journals, course, base)
            draw(document["editors"], document["machine"], plot)
            if options.json:
                options.json.write_text(json.dumps(document, indent=1))
    console.print(table_of(document))
    for sentence in sentences_of(document):
        console.print(sentence)
    console.print(f"unedited on the same {len(base.scores)} edits: success {document['unedited']['success']:.3f}, "
                  f"neighbourhood {document['unedited']['neighbourhood']:.3f}")
    console.print(f"{document['machine']}; picture: {plot}; continued from: {options.checkpoint}")


if __name__ == "__main__":
    main()
