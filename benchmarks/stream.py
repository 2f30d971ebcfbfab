"""A stream of edits on one model: every batch on top of all before, everything written so far asked again at each point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.answers import perplexity
from benchmarks.cases import Case, Scores
from benchmarks.counterfact import case_scores
from benchmarks.intervals import interval, mean, paired_interval
from benchmarks.journal import Journal
from benchmarks.line import Line
from benchmarks.measured import measured
from benchmarks.shipped import plan
from editors.contract import Progress, silent
from editors.errors import SutureError
from editors.loading import LoadedModel

FIGURES = ("success", "paraphrase", "teacher_forced", "paraphrase_teacher_forced", "first_choice", "neighbourhood")
OLDEST = 100
"""How many of the first edits are also looked at alone: they have been written over most often."""


@dataclass(frozen=True)
class Arm:
    """One editor and how many edits it is given at a time."""

    method: str
    size: int

    @property
    def name(self) -> str:
        """How it is called in tables, pictures and JSON."""
        return self.method if self.size > 1 else f"{self.method}, one at a time"


@dataclass(frozen=True)
class Course:
    """What every arm runs over: the edits in order, after how many to look, and the text that must stay readable."""

    cases: tuple[Case, ...]
    points: tuple[int, ...]
    texts: tuple[str, ...]

    def sizes(self, size: int) -> list[int]:
        """Batches of at most `size` edits, cut where a point lies: 1, 9, 90, 100, ... for size 100 and points 1, 10, 100."""
        sizes, done = [], 0
        for point in self.points:
            while done < point:
                sizes.append(min(size, point - done))
                done += sizes[-1]
        return sizes


@dataclass(frozen=True)
class Unedited:
    """The base's scores on the same cases, and its perplexity on the same text."""

    scores: list[Scores]
    perplexity: float


def unedited(model: LoadedModel, course: Course) -> Unedited:
    """Measure the base once for all arms."""
    return Unedited(case_scores(model, course.cases[:course.points[-1]]), perplexity(model, course.texts))


def run(model: LoadedModel, arm: Arm, course: Course, base: Unedited, journal: Journal, statistics: Path,
        progress: Progress = silent) -> None:
    """Carry out the arm into its journal, from where that stands; the model is unchanged afterwards.

    An editor that cannot go on is no failure of the benchmark: the reason is kept and the arm ends.

    Raises:
        IntegrityError: the model is not the base under the patches, or a kept patch is damaged.
    """
    sizes = course.sizes(arm.size)
    with Line(model) as line:
        for patch in journal.patches():
            line.append(patch)
        _look_if_due(line, course, base, journal)
        for size in sizes[len(journal.batches):]:
            if journal.stopped is not None:
                break
            _go_on(line, arm, course.cases[journal.edits:journal.edits + size], journal, statistics, progress)
            progress(arm.name, journal.edits, course.points[-1])
            _look_if_due(line, course, base, journal)
        line.verify()


def look(line: Line, course: Course, base: Unedited, done: int, cpu_seconds: float) -> dict[str, Any]:
    """One point: all edits so far, under the model as it is now."""
    scores, before = case_scores(line.model, course.cases[:done]), base.scores[:done]
    columns = {figure: [getattr(score, figure) for score in scores] for figure in FIGURES}
    kept = [score.neighbourhood for score in before]
    return {
        "edits": done, **{figure: mean(values) for figure, values in columns.items()},
        "unedited_neighbourhood": mean(kept), "neighbourhood_drop": mean(kept) - mean(columns["neighbourhood"]),
        "perplexity_ratio": _or_none(perplexity(line.model, course.texts) / base.perplexity),
        "oldest_success": mean(columns["success"][:OLDEST]),
        "oldest_teacher_forced": mean(columns["teacher_forced"][:OLDEST]),
        "update_norms": {str(layer): value for layer, value in line.update_norms().items()},
        "cpu_seconds_an_edit": cpu_seconds / done,
        "intervals": {**{figure: [*interval(columns[figure])] for figure in ("success", "paraphrase", "teacher_forced")},
                      "neighbourhood_drop": [*paired_interval(kept, columns["neighbourhood"])]},
    }


def _go_on(line: Line, arm: Arm, cases: Sequence[Case], journal: Journal, statistics: Path, progress: Progress) -> None:
    # an editor's own progress would only flicker for single edits
    told = progress if arm.size > 1 else silent
    try:
        with measured() as took:
            patch = plan(line.model, arm.method, cases, statistics, told, line.base_digest, line.patches)
        line.append(patch)
    except SutureError as error:
        journal.stop(f"after {journal.edits} edits: {error.message}")
        return
    journal.add_batch(patch, len(cases), took.cpu_seconds, took.peak_bytes)


def _look_if_due(line: Line, course: Course, base: Unedited, journal: Journal) -> None:
    done = journal.edits
    if done in course.points and done not in [point["edits"] for point in journal.points]:
        journal.add_point(look(line, course, base, done, sum(batch["cpu_seconds"] for batch in journal.batches)))


def _or_none(value: float) -> float | None:
    """JSON has no infinity and no NaN."""
    return value if math.isfinite(value) else None
