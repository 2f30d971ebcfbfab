"""The rows of the quality table, and the same as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from benchmarks.cases import Scores
from benchmarks.intervals import interval, mean, paired_interval


@dataclass(frozen=True)
class Outcome:
    """One row: the scores of every record, and what the editing took. Costs are an edit's; zero where nothing was edited."""

    dataset: str
    method: str
    how: str
    """How many records, and whether at once."""
    scores: list[Scores]
    said: list[float]
    """For the first records, whether the free answer was the new one."""
    perplexity_ratio: float = 1.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    grown_bytes: int = 0
    """Most memory of one plan, above the loaded model."""

    @property
    def is_unedited(self) -> bool:
        """Whether this is a row that others stand beside."""
        return self.method == "unedited"

    @property
    def title(self) -> str:
        """How the row is called within its data set."""
        return f"{self.method}, {self.how}"

    def column(self, name: str) -> list[float]:
        """One figure of every record."""
        return [getattr(score, name) for score in self.scores]


def document_of(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The rows with their intervals, the paired change against the unedited row above, and the scores of every record."""
    rows, beside = [], outcomes[0]
    for outcome in outcomes:
        beside = outcome if outcome.is_unedited else beside
        rows.append({
            "dataset": outcome.dataset, "method": outcome.method, "name": outcome.title,
            "perplexity_ratio": outcome.perplexity_ratio if math.isfinite(outcome.perplexity_ratio) else None,
            "seconds_an_edit": outcome.seconds, "cpu_seconds_an_edit": outcome.cpu_seconds,
            "memory_bytes": outcome.grown_bytes,
            "shares": {**{entry.name: _share(outcome.column(entry.name), beside.column(entry.name))
                          for entry in fields(Scores)}, "said": _share(outcome.said, beside.said)},
            "records": [asdict(score) for score in outcome.scores]})
    return rows


def _share(values: Sequence[float], before: Sequence[float]) -> dict[str, Any]:
    return {"mean": mean(values), "interval": interval(values), "change": mean(values) - mean(before),
            "change_interval": paired_interval(values, before)}
