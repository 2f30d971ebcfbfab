"""One edit's search and one round of questions, by one process and by several: seconds, and whether the result is the same."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from prefect import flow
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_LOGGING_LEVEL,
    PREFECT_LOGGING_TO_API_ENABLED,
    temporary_settings,
)

from benchmarks.cases import Case
from benchmarks.shipped import CACHE, plan
from editors.crew import Alone, Crew, hired
from editors.loading import LoadedModel
from editors.patch import Patch
from flows.crew import crew_of
from flows.settings import Settings
from tasks.prefect_server import embedded_prefect
from validations.scoring import Answer, Ask, answer

Part = TypeVar("Part")
Result = TypeVar("Result")
WARMING = 4
"""Short parts for each worker before anything is timed."""


@dataclass
class Timed:
    """A crew whose parts are timed where they are carried out."""

    who: Crew
    spent: Counter[int] = field(default_factory=Counter)
    """Process -> CPU seconds of its parts."""
    parts: int = 0

    def carry_out(self, work: Callable[[LoadedModel, Part], Result], model: LoadedModel,
                  parts: Sequence[Part]) -> Iterator[Result]:
        """The result of each part, in order."""
        self.parts += len(parts)
        for process, seconds, result in self.who.carry_out(_timed, model, [(work, part) for part in parts]):
            self.spent[process] += seconds
            yield result


@dataclass(frozen=True)
class Shared:
    """What so many workers took. The slowest one's seconds are those of the whole where each has a core of its own."""

    workers: int
    parts: int
    cpu_seconds: float
    slowest_seconds: float
    wall_seconds: float
    """On this machine as it was; without the workers' start and their load of the model."""
    apart: float
    """Largest difference of an update's number from one process's, as a share of the largest; infinite where answers differ."""


def read(model: LoadedModel, cases: Sequence[Case], asked: Sequence[Case], counts: Sequence[int], statistics: Path,
         home: Path) -> list[Shared]:
    """MEMIT's search for the cases and the questions about others, by each number of workers; one process comes first."""
    asks = [Ask(tuple(model.tokenizer(prompt)["input_ids"]), greedy_tokens=2) for case in asked
            for prompt in (case.question, *case.paraphrases, *(near for near, _ in case.neighbours))]
    plan(model, "memit", cases[:1], statistics)
    alone, found, base = _work(model, cases, asks, statistics, Alone(), 1)
    readings = [alone]
    with embedded_prefect(home, CACHE, linger_seconds=0.0) as client, temporary_settings(_client(client, home)):
        for count in (one for one in counts if one > 1):
            reading, *other = _shared(model, cases, asks, statistics, count)
            readings.append(replace(reading, apart=_apart(found, base, *other)))
    return readings


_ahead: ContextVar[Callable[[], Any]] = ContextVar("ahead")
"""What the flow does. No argument of it: Prefect sends a flow's arguments to every worker, and the model is among them."""


def do_what_is_ahead() -> Any:
    """Named by the flow, which goes to the workers by value, in place of the variable, which cannot."""
    return _ahead.get()()


@flow(name="scaling")
def _flow() -> Any:
    return do_what_is_ahead()


def _shared(model: LoadedModel, cases: Sequence[Case], asks: Sequence[Ask], statistics: Path,
            count: int) -> tuple[Shared, Patch, list[Answer]]:
    def work() -> tuple[Shared, Patch, list[Answer]]:
        with crew_of(Settings(workers="dask", worker_count=count, device="cpu")) as crew:  # type: ignore[call-arg]
            # the workers start, load the model and run its code once
            list(crew.carry_out(_warm, model, list(range(WARMING * count))))
            return _work(model, cases, asks, statistics, crew, count)

    _ahead.set(work)
    done: tuple[Shared, Patch, list[Answer]] = _flow()
    return done


def _work(model: LoadedModel, cases: Sequence[Case], asks: Sequence[Ask], statistics: Path, who: Crew,
          count: int) -> tuple[Shared, Patch, list[Answer]]:
    timed, began = Timed(who), time.perf_counter()
    with hired(timed):
        patch, said = plan(model, "memit", cases, statistics), answer(model, asks)
    return (Shared(count, timed.parts, sum(timed.spent.values()), max(timed.spent.values()), time.perf_counter() - began, 0.0),
            patch, said)


def _timed(model: LoadedModel, given: tuple[Callable[[LoadedModel, Any], Any], Any]) -> tuple[int, float, Any]:
    work, part = given
    # this thread's: the process has others, that talk with the scheduler
    began = time.thread_time()
    result = work(model, part)
    return os.getpid(), time.thread_time() - began, result


def _warm(model: LoadedModel, part: int) -> int:
    answer(model, [Ask((1, 2, 3))])
    time.sleep(0.2)
    return part


def _client(client: Mapping[str, str], home: Path) -> dict[Any, Any]:
    return {PREFECT_API_URL: client["PREFECT_API_URL"], PREFECT_HOME: home, PREFECT_LOGGING_LEVEL: "ERROR",
            PREFECT_LOGGING_TO_API_ENABLED: False}


def _apart(patch: Patch, said: Sequence[Answer], other: Patch, others: Sequence[Answer]) -> float:
    """Largest difference between the updates, against the largest number of each."""
    if list(said) != list(others):
        return float("inf")
    gaps = []
    for one, two in zip(patch.edits, other.edits, strict=True):
        old, new = (edit.delta(torch.zeros(1)) for edit in (one, two))  # these edits read no weight
        gaps.append(float((old - new).abs().max() / old.abs().max()))
    return max(gaps)
