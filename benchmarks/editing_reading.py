"""One reading of `benchmarks.editing`, taken in a process of its own: cost of a plan, and how well it edits."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import naive
from benchmarks.cases import Case, Scores, edit_batch
from benchmarks.counterfact import case_of, case_scores, short_case_of
from benchmarks.intervals import mean
from benchmarks.measured import measured
from benchmarks.shipped import CACHE, packaged_model, plan
from editors.calibration import calibration_for
from editors.contract import Location
from editors.corpus import default_corpus
from editors.facts import facts_of
from editors.loading import LoadedModel
from editors.moments import second_moments
from editors.patch import Patch, applied
from editors.suffix import SuffixRunner

STATISTICS = CACHE / "statistics"
NAIVE_CONTEXTS = 5
"""Six rewriting prompts and a neutral one: seven a step."""
FIRST = 250
"""Records before this one were looked at when options were chosen."""


@dataclass(frozen=True)
class Task:
    """What to measure. `sample`: how many single edits, or how many of a batch the naive path carries out."""

    method: str
    path: str
    count: int
    sample: int
    data: str


@dataclass(frozen=True)
class Reading:
    """seconds: CPU seconds an edit; flops and minimum_flops: an edit; peak_bytes: the process's, less what the imports took."""

    method: str
    path: str
    count: int
    seconds: float
    flops: float
    minimum_flops: float
    peak_bytes: int
    model_bytes: int
    success: float
    paraphrase: float
    neighbourhood: float


def read(task: Task) -> Reading:
    """Carry out one task."""
    torch.set_num_threads(1)
    with measured() as loading:
        model = packaged_model()
    cases = _cases(Path(task.data), max(task.count, task.sample))
    batches = [cases[place:place + 1] for place in range(task.sample)] if task.count == 1 else [cases[:task.count]]
    if task.path == "naive":
        batches = batches if task.count == 1 else [cases[:task.sample]]
        _plan_naively(model, task.method, cases[:1])
    else:
        # the store of statistics is filled, and read once, before anything is timed
        plan(model, task.method, cases[:1], STATISTICS)
    with measured() as took:
        patches = [_plan_naively(model, task.method, batch) if task.path == "naive" else
                   plan(model, task.method, batch, STATISTICS) for batch in batches]
    edits = sum(map(len, batches))
    seconds = _for_the_batch(model, task, took.cpu_seconds, edits) if task.path == "naive" else took.cpu_seconds / edits
    flops, least = _flops(model, task, batches[0][:10])
    scores = _scores(model, patches, cases, task)
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.model.parameters())
    return Reading(task.method, task.path, task.count, seconds, flops, least,
                   took.peak_bytes - (loading.peak_bytes - loading.grown_bytes), size,
                   *(mean([getattr(score, name) for score in scores]) for name in ("success", "paraphrase", "neighbourhood")))


def _plan_naively(model: LoadedModel, method: str, cases: Sequence[Case]) -> Patch:
    layers, moments, weight = _naive_parts(model, method)
    location = Location(layers=tuple(layers), positions={}, source="calibration")
    facts = facts_of(model, edit_batch(cases, model), location, "auto", NAIVE_CONTEXTS)
    change = naive.search_all(model, layers[-1], facts, naive.Settings())
    return naive.write(model, layers, facts, change, moments, weight)


def _naive_parts(model: LoadedModel, method: str) -> tuple[list[int], dict[int, torch.Tensor], float]:
    """Layers, second moments and covariance weight: the editor's own, so that only the way differs."""
    calibration = calibration_for(method, model.digest, model.anatomy)
    layers, corpus = list(calibration.layers), default_corpus(model, model.digest, STATISTICS)
    moments = second_moments(model, layers, corpus, STATISTICS, base_digest=model.digest)
    return layers, moments, float(calibration.options.get("covariance_weight", 1500.0)) if method == "memit" else 0.0


def _for_the_batch(model: LoadedModel, task: Task, seconds: float, edits: int) -> float:
    """CPU seconds an edit at `task.count` edits, from those of a sample.

    The search and the reading go one edit after another; a batch is solved once, however many edits it has.
    """
    if task.count == 1:
        return seconds / edits
    layers, moments, weight = _naive_parts(model, task.method)
    keys, residuals = torch.randn(model.anatomy.inner_size, edits), torch.randn(model.anatomy.hidden_size, edits)
    started = time.process_time()
    for layer in layers:
        naive.dense_update(keys, residuals, moments[layer], weight)
    solving = time.process_time() - started
    return (seconds - solving) / edits + solving / task.count


def _scores(model: LoadedModel, patches: Sequence[Patch], cases: Sequence[Case], task: Task) -> list[Scores]:
    """Both paths' batches are scored on the sample, so that they are compared on the same edits."""
    scores: list[Scores] = []
    for number, patch in enumerate(patches):
        with applied(model.model, patch):
            scores += case_scores(model, cases[number:number + 1] if task.count == 1 else cases[:task.sample])
    return scores


def _flops(model: LoadedModel, task: Task, cases: Sequence[Case]) -> tuple[float, float]:
    """FLOPs an edit, and the least that the steps of its target search need; 0 without such a search."""
    if task.path == "naive":
        return _counted(lambda: _plan_naively(model, task.method, cases[:1])), 0.0
    with _least() as least:
        flops = _counted(lambda: plan(model, task.method, cases, STATISTICS))
    return flops / len(cases), least[0] / len(cases)


def _counted(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


@contextmanager
def _least() -> Iterator[list[float]]:
    """Add up what each call of the runner needs at least: own tokens times later layers, reads times head."""
    total, inner = [0.0], SuffixRunner.logits

    def counting(self: SuffixRunner, chunk: Any, change: torch.Tensor) -> torch.Tensor:
        shapes, model = self.model.anatomy, self.model.model
        block = sum(parameter.numel() for parameter in model.get_submodule(shapes.block_path(0)).parameters())
        tokens = sum(len(self.rows[number].ids) - self.rows[number].anchor for number in chunk.numbers)
        reads = len(chunk.read_row) * shapes.hidden_size * shapes.vocabulary_size
        total[0] += (4 if change.requires_grad else 2) * (tokens * (shapes.layer_count - 1 - self.layer) * block + reads)
        return inner(self, chunk, change)

    SuffixRunner.logits = counting  # type: ignore[method-assign]
    try:
        yield total
    finally:
        SuffixRunner.logits = inner  # type: ignore[method-assign]


def _cases(data: Path, count: int) -> list[Case]:
    """Records that no option was chosen on: 250 to 499 of the long file, then those of the short one."""
    long = [case_of(record) for record in json.loads((data / "counterfact_0-499.json").read_text())[FIRST:]]
    return (long + [short_case_of(record) for record in json.loads((data / "counterfact_short_4000.json").read_text())])[:count]
