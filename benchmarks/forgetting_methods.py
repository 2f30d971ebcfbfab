"""The methods of the forgetting benchmark, each as patches of rising strength."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import editors
from benchmarks.forgetting_baselines import first_token_scores, gradient_ascent, random_neurons, strongest
from benchmarks.forgetting_ground import Attempt, Ground
from benchmarks.forgetting_reading import Effort
from editors.calibration import calibration_for
from editors.contract import EditBatch, Location, Progress, silent
from editors.patch import Patch, applied
from editors.secret_rows import SecretRow, secret_rows

DEFAULT = "redact"
"""What ships as the method of a forget sheet that names none."""
EDITORS = "depn", "redact", "redact + depn"
METHODS = *EDITORS, "random neurons", "single-token neurons", "gradient ascent"
SHIPPED: Mapping[str, Any] = {}
DEPN: Mapping[str, Mapping[str, Any]] = {"as shipped": SHIPPED}
REDACT: Mapping[str, Mapping[str, Any]] = {"as shipped": SHIPPED}
"""Options of an editor by the label that the table shows; the first is the default."""
AS_MANY, FEWER = 200, (50, 3)
"""Neurons zeroed by the two baselines: as many as depn scaled, or this many where it was not run; and fewer."""
FIRST_TOKEN_POINTS = 10
ASCENT_STEP, ASCENT_SNAPSHOTS = 1e-4, (4, 2, 8)
SEED = 0


@dataclass(frozen=True)
class Workshop:
    """What methods are given. `base_digest` is the base's that was fine-tuned: its text and second moments are used."""

    ground: Ground
    base_digest: str
    statistics: Path
    show: Progress = silent

    @property
    def batch(self) -> EditBatch:
        """All requests at once."""
        return EditBatch(purpose="forget", base_digest=self.base_digest, parent_digest=self.ground.model.digest,
                         requests=self.ground.requests)

    @property
    def rows(self) -> list[SecretRow]:
        """The secrets in their contexts, as editors see them."""
        return [row for request in self.ground.requests for row in secret_rows(request, self.ground.model.tokenizer)]

    def plan(self, method: str, options: Mapping[str, Any], earlier: Sequence[Patch] = ()) -> Patch:
        """An editor's patch; its shipped options with `options` over them. `earlier` are those that the model carries."""
        model = self.ground.model
        calibration = calibration_for(method, self.base_digest, model.anatomy)
        location = Location(layers=calibration.layers, positions={}, source="calibration")
        editor = editors.get(method).from_options({**calibration.options, **options})
        return editor.plan(model, self.batch, location, self.statistics, self.show, earlier)


def attempts(workshop: Workshop, names: Sequence[str] | None, *, quick: bool) -> Iterator[tuple[Attempt, Effort]]:
    """Every attempt of the methods named (None: all), and how hard its secrets are tried.

    The first attempt of a method is its own default, whose secrets are sampled as well and, where it is an editor's, asked
    again after relearning.
    """
    counts = [AS_MANY, *(() if quick else FEWER)]
    makers: dict[str, Callable[[], Iterator[Attempt]]] = {
        "depn": lambda: editor_attempts(workshop, "depn", _first(DEPN, quick)),
        "redact": lambda: editor_attempts(workshop, "redact", _first(REDACT, quick)),
        "redact + depn": lambda: combined_attempts(workshop, "redact", "depn"),
        "random neurons": lambda: random_attempts(workshop, counts),
        "single-token neurons": lambda: first_token_attempts(workshop, counts),
        "gradient ascent": lambda: ascent_attempts(workshop, ASCENT_SNAPSHOTS[:1] if quick else ASCENT_SNAPSHOTS)}
    for name in METHODS if names is None else names:
        for place, attempt in enumerate(makers[name]()):
            if name == "depn" and place == 0:
                counts[0] = attempt.neurons or AS_MANY
            yield attempt, Effort(samples=place == 0, relearning=place == 0 and name in EDITORS and not quick)


def editor_attempts(workshop: Workshop, method: str, strengths: Mapping[str, Mapping[str, Any]]) -> Iterator[Attempt]:
    """An editor at each of its strengths, by the label that the table shows."""
    for label, options in strengths.items():
        yield _timed(method, label, lambda options=options: workshop.plan(method, options))


def combined_attempts(workshop: Workshop, first: str, second: str) -> Iterator[Attempt]:
    """A second editor on the model that the first one's patch leaves, both as shipped."""
    began, model = time.process_time(), workshop.ground.model
    patch = workshop.plan(first, {})
    with applied(model.model, patch):
        further = workshop.plan(second, {}, (patch,))
    yield Attempt(f"{first} + {second}", "both as shipped", (patch, further), time.process_time() - began)


def random_attempts(workshop: Workshop, counts: Sequence[int]) -> Iterator[Attempt]:
    """Neurons drawn evenly."""
    for count in counts:
        yield _timed("random neurons", f"{count} zeroed",
                     lambda count=count: random_neurons(workshop.ground.model, count, SEED))


def first_token_attempts(workshop: Workshop, counts: Sequence[int]) -> Iterator[Attempt]:
    """Knowledge neurons of the secret's first token alone; each attempt's seconds hold the attribution, which they share."""
    began = time.process_time()
    scores = first_token_scores(workshop.ground.model, workshop.rows, FIRST_TOKEN_POINTS)
    took = time.process_time() - began
    for count in counts:
        yield Attempt("single-token neurons", f"{count} zeroed", (strongest(workshop.ground.model, scores, count),), took)


def ascent_attempts(workshop: Workshop, snapshots: Sequence[int]) -> Iterator[Attempt]:
    """Gradient ascent, more steps each time."""
    began = time.process_time()
    patches = gradient_ascent(workshop.ground.model, workshop.rows, ASCENT_STEP, snapshots)
    seconds = (time.process_time() - began) / max(snapshots)
    for steps in snapshots:
        yield Attempt("gradient ascent", f"{steps} steps", (patches[steps],), seconds * steps)


def _first(strengths: Mapping[str, Mapping[str, Any]], quick: bool) -> dict[str, Mapping[str, Any]]:
    return dict(list(strengths.items())[:1 if quick else None])


def _timed(method: str, label: str, make: Callable[[], Patch]) -> Attempt:
    began = time.process_time()
    patch = make()
    return Attempt(method, label, (patch,), time.process_time() - began)
