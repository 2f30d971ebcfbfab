"""One reading of `benchmarks.editing`, taken in a process of its own: cost of a plan, and how well it edits."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import editors
from benchmarks import naive
from benchmarks.counterfact import Scores, batch_of, record_scores
from editors.calibration import Calibration, calibration_for
from editors.contract import Location
from editors.corpus import default_corpus
from editors.facts import facts_of
from editors.loading import Checkpoint, LoadedModel, load
from editors.moments import second_moments
from editors.packaged import packaged_folder
from editors.patch import Patch, applied
from editors.suffix import SuffixRunner

CACHE = Path("~/.cache/suture").expanduser()
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
    """seconds: CPU seconds an edit; flops and minimum_flops: an edit; peak_bytes: resident, above the imports."""

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
    before = _resident_bytes()
    model = load(Checkpoint(packaged_folder(CACHE)))
    records = _records(Path(task.data), max(task.count, task.sample))
    calibration = calibration_for(task.method, model.digest, model.anatomy)
    if task.path == "naive":
        seconds, patches = _naive(model, task, records, calibration)
        flops, least = _flops(lambda: _naive(model, Task(task.method, task.path, 1, 1, task.data), records, calibration)), 0.0
    else:
        batches = [[record] for record in records[:task.sample]] if task.count == 1 else [records[:task.count]]
        started = time.process_time()
        patches = [_plan(model, task.method, batch, calibration) for batch in batches]
        seconds = (time.process_time() - started) / sum(map(len, batches))
        flops, least = _engine_flops(model, task.method, batches[0][:10], calibration)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    scores = _scores(model, patches, records, task)
    columns = ("success", "paraphrase", "neighbourhood")
    shares = [sum(getattr(score, name) for score in scores) / len(scores) for name in columns]
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.model.parameters())
    return Reading(task.method, task.path, task.count, seconds, flops, least, peak, size, *shares)


def _plan(model: LoadedModel, method: str, records: Sequence[dict[str, Any]], calibration: Calibration) -> Patch:
    editor = editors.get(method).from_options(calibration.options)
    location = Location(layers=calibration.layers, positions={}, source="calibration")
    return editor.plan(model, batch_of(records, model), location, CACHE / "statistics")


def _naive(model: LoadedModel, task: Task, records: Sequence[dict[str, Any]],
           calibration: Calibration) -> tuple[float, list[Patch]]:
    """CPU seconds an edit at `task.count` edits, and the sample's patches."""
    layers = list(calibration.layers)
    moments = second_moments(model, layers, default_corpus(model, model.digest, CACHE / "statistics"), CACHE / "statistics",
                             base_digest=model.digest)
    settings = naive.Settings()
    weight = float(calibration.options.get("covariance_weight", 1500.0)) if task.method == "memit" else 0.0
    batches = [[record] for record in records[:task.sample]] if task.count == 1 else [records[:task.sample]]
    started, patches = time.process_time(), []
    for batch in batches:
        location = Location(layers=tuple(layers), positions={}, source="calibration")
        facts = facts_of(model, batch_of(batch, model), location, "auto", NAIVE_CONTEXTS)
        change = naive.search_all(model, layers[-1], facts, settings)
        patches.append(naive.write(model, layers, facts, change, moments, weight))
    spent = time.process_time() - started
    keys = torch.randn(model.anatomy.inner_size, 1)
    started = time.process_time()
    for layer in layers if task.count > 1 else ():
        naive.dense_update(keys, torch.randn(model.anatomy.hidden_size, 1), moments[layer], weight)
    solving = time.process_time() - started
    # a batch solves once, however many edits it has: the sample's solves are not paid again for the others
    return (spent - solving) / task.sample + solving / max(task.count, 1), patches


def _scores(model: LoadedModel, patches: Sequence[Patch], records: Sequence[dict[str, Any]], task: Task) -> list[Scores]:
    """Both paths' batches are scored on the sample, so that they are compared on the same edits."""
    scores: list[Scores] = []
    for number, patch in enumerate(patches):
        with applied(model.model, patch):
            scores += record_scores(model, records[number:number + 1] if task.count == 1 else records[:task.sample])
    return scores


def _flops(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def _engine_flops(model: LoadedModel, method: str, records: Sequence[dict[str, Any]],
                  calibration: Calibration) -> tuple[float, float]:
    """FLOPs an edit, and the least that the target search's steps need; 0 where an editor has no such search."""
    with _counted_steps(model) as least:
        flops = _flops(lambda: _plan(model, method, records, calibration))
    return flops / len(records), least[0] / len(records)


@contextmanager
def _counted_steps(model: LoadedModel) -> Iterator[list[float]]:
    """Add up what each call of the runner needs at least: own tokens times later layers, reads times head."""
    shapes, total, inner = model.anatomy, [0.0], SuffixRunner.logits
    block = sum(parameter.numel() for parameter in model.model.get_submodule(shapes.block_path(0)).parameters())
    head = shapes.hidden_size * shapes.vocabulary_size

    def counting(self: SuffixRunner, chunk: Any, change: torch.Tensor) -> torch.Tensor:
        tokens = sum(len(self.rows[number].ids) - self.rows[number].anchor for number in chunk.numbers)
        passes = 4 if change.requires_grad else 2
        total[0] += passes * (tokens * (shapes.layer_count - 1 - self.layer) * block + len(chunk.read_row) * head)
        return inner(self, chunk, change)

    SuffixRunner.logits = counting  # type: ignore[method-assign]
    try:
        yield total
    finally:
        SuffixRunner.logits = inner  # type: ignore[method-assign]


def _records(data: Path, count: int) -> list[dict[str, Any]]:
    """Records 250 on of the long file, then those of the short one in the same shape."""
    records = json.loads((data / "counterfact_0-499.json").read_text())[FIRST:]
    records += [_lengthened(record) for record in json.loads((data / "counterfact_short_4000.json").read_text())]
    return records[:count]


def _lengthened(record: dict[str, Any]) -> dict[str, Any]:
    subject = record["subject"]
    return {"case_id": record["case_id"], "paraphrase_prompts": [record["rephrase_prompt"]],
            "neighborhood_prompts": [record["locality_prompt"]],
            "requested_rewrite": {"prompt": record["prompt"].replace(subject, "{}", 1), "subject": subject,
                                  "target_new": {"str": record["target_new"]},
                                  "target_true": {"str": record["ground_truth"]}}}


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
