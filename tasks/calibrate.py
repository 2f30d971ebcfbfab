"""Base -> Calibrated: each method's layers and options, found by a small sweep on facts that the model knows.

The sweep is staged: the layers first, then one option after another, each from the best so far. Every trial is a stage
of the workspace, so a sweep that was cut short goes on where it was.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import editors
from editors.calibration import calibration_file, calibration_for
from editors.contract import EditBatch, Frozen, Location, UpdateRequest
from editors.digest import digest_document
from editors.errors import ConfigError, Diverged, IntegrityError
from editors.known_facts import KnownFact, read_facts, shipped_facts
from editors.stored import write_whole
from tasks.exam import NOTHING, Examiner, Marks, requests_of
from tasks.house import House
from tasks.intake import find_base
from tasks.warm import warm

if TYPE_CHECKING:
    from editors.loading import Checkpoint

logger = logging.getLogger("suture")
SWEEPS = Path(editors.__file__).with_name("sweeps.yaml")
FEWEST_REQUESTS = 4
HELD_OUT_TOKENS, FEWEST_HELD_OUT = 2048, 512
"""Held-out tokens that are read in a trial, and at least after each of its batches."""


class Trial(Frozen):
    """One setting of a method and how it did."""

    stage: str
    """What was varied: `layers`, or an option's name."""
    layers: tuple[int, ...]
    options: Mapping[str, Any]
    marks: Marks
    score: float


class Swept(Frozen):
    """A method's trials in order, and the best of them."""

    method: str
    facts: int
    trials: tuple[Trial, ...]
    best: Trial


class Calibrated(Frozen):
    """What was found for a base, and where it is kept."""

    base: str
    base_digest: str
    known: int
    asked: int
    methods: tuple[Swept, ...]
    path: Path
    picture: Path


@dataclass(frozen=True)
class Sweep:
    """What is tried for one method; the fields are those of `editors/sweeps.yaml`."""

    facts: int
    together: int
    width: int
    depths: tuple[float, ...]
    options: Mapping[str, Sequence[Any]]

    def windows(self, count: int) -> tuple[tuple[int, ...], ...]:
        """The layers to be tried in a model with `count`."""
        width = min(self.width, count)
        starts = dict.fromkeys(min(round(depth * count), count - width) for depth in self.depths)
        return tuple(tuple(range(start, start + width)) for start in starts) if width else ()


@dataclass(frozen=True)
class Bench:
    """Where trials of one method run."""

    base: Checkpoint
    method: str
    requests: tuple[UpdateRequest, ...]
    together: int
    house: House

    def trial(self, stage: str, layers: tuple[int, ...], options: Mapping[str, Any]) -> Trial:
        """Edit, ask and take the edit back; found again when it was tried before."""
        asked = digest_document([request.model_dump(mode="json") for request in self.requests])
        inputs = {"base": self.base.digest, "method": self.method, "layers": layers, "options": dict(options),
                  "together": self.together, "requests": asked}
        done = self.house.workspace.run("trial-2", inputs, lambda _: self._judged(layers, options).model_dump())
        marks = Marks.model_validate(done.document)
        return Trial(stage=stage, layers=layers, options=dict(options), marks=marks, score=marks.score)

    def _judged(self, layers: tuple[int, ...], options: Mapping[str, Any]) -> Marks:
        try:
            return self._tried(layers, options)
        except Diverged as error:
            # a setting under which the method diverges is a bad setting, and no reason to end the sweep
            logger.warning("%s at layers %s with %s: %s", self.method, layers, dict(options), error.message)
            return NOTHING

    def _tried(self, layers: tuple[int, ...], options: Mapping[str, Any]) -> Marks:
        from editors.loading import load
        from editors.patch import applied

        model = load(self.base, self.house.device)
        editor = editors.get(self.method).from_options(options)
        groups = [self.requests[start:start + self.together] for start in range(0, len(self.requests), self.together)]
        held_out = max(FEWEST_HELD_OUT, HELD_OUT_TOKENS // len(groups))
        shares: list[tuple[int, dict[str, float]]] = []
        risen, clean = 0.0, Examiner(model, (), held_out).loss()
        for group in groups:
            batch = EditBatch(purpose="update", base_digest=self.base.digest, parent_digest=self.base.digest, requests=group)
            location = Location(layers=layers, positions={}, source="calibration")
            examiner = Examiner(model, group, held_out)
            with applied(model.model, editor.plan(model, batch, location, self.house.statistics)):
                shares.append((len(group), examiner.shares()))
                risen += (examiner.loss() - clean) / len(groups)
        return _marks(shares, risen)


def calibrate(base: str, facts: str | None, methods: Sequence[str], house: House) -> Calibrated:
    """Sweep the methods (none named: all that update) and keep what was found for this base.

    Raises:
        BaseNotFound: the base leads nowhere.
        ConfigError: a method or the file of facts is wrong, or the model knows too few facts.
        IntegrityError: a method fails under every setting.
    """
    checkpoint = find_base(base, house)
    chosen = tuple(methods) or tuple(name for name in editors.names() if "update" in editors.get(name).purposes)
    sweeps = {name: sweep_of(name) for name in chosen}
    asked = read_facts(Path(facts).expanduser()) if facts else shipped_facts()
    known = known_of(checkpoint, asked, house)
    requests = {name: requests_of(known, sweep.facts) for name, sweep in sweeps.items()}
    fewest = min(map(len, requests.values()))
    if fewest < FEWEST_REQUESTS:
        raise ConfigError(f"{base} knows {len(known)} of {len(asked)} facts, enough for {fewest} edits; "
                          f"{FEWEST_REQUESTS} are needed", "--facts FILE with facts that this model knows")
    windows = [window for sweep in sweeps.values() for window in sweep.windows(checkpoint.anatomy.layer_count)]
    starts = [calibration_for(name, checkpoint.digest, checkpoint.anatomy).layers for name in chosen]
    layers = sorted({layer for window in [*windows, *starts] for layer in window})
    warm(base, ",".join(map(str, layers)), house)
    found = [_swept(Bench(checkpoint, name, requests[name], sweep.together, house), sweep) for name, sweep in sweeps.items()]
    path = calibration_file(house.calibrations, checkpoint.digest)
    answer = Calibrated(base=base, base_digest=checkpoint.digest, known=len(known), asked=len(asked), methods=tuple(found),
                        path=path, picture=path.with_suffix(".png"))
    _keep(answer)
    return answer


def sweep_of(method: str) -> Sweep:
    """What is tried for a method: its entry in the data, or the default with the options that it has.

    Raises:
        ConfigError: there is no such method.
    """
    entries = yaml.safe_load(SWEEPS.read_text())
    kind, entry = editors.get(method), entries.get(method, entries["default"])
    options = {name: values for name, values in entry["options"].items() if _takes(kind, name, values[0])}
    return Sweep(entry["facts"], entry["together"], entry["width"], tuple(entry["depths"]), options)


def _takes(kind: Any, option: str, value: Any) -> bool:
    try:
        kind.from_options({option: value})
    except ConfigError:
        return False
    return True


def _swept(bench: Bench, sweep: Sweep) -> Swept:
    start = calibration_for(bench.method, bench.base.digest, bench.base.anatomy)
    trials: list[Trial] = []
    total = len(sweep.windows(bench.base.anatomy.layer_count)) + sum(map(len, sweep.options.values())) + 1

    def tried(stage: str, layers: tuple[int, ...], options: Mapping[str, Any]) -> None:
        if not any((one.layers, dict(one.options)) == (layers, dict(options)) for one in trials):
            trials.append(bench.trial(stage, layers, options))
        bench.house.progress(f"{bench.method}: {stage}", len(trials), total)

    tried("layers", start.layers, start.options)
    for window in sweep.windows(bench.base.anatomy.layer_count):
        tried("layers", window, start.options)
    for option, values in sweep.options.items():
        best = best_of(trials)
        for value in values:
            tried(option, best.layers, {**best.options, option: value})
    if all(trial.marks == NOTHING for trial in trials):
        raise IntegrityError(f"{bench.method} could not edit {bench.base.folder.name} under any setting that was tried",
                             f"suture calibrate MODEL with another --method than {bench.method}")
    return Swept(method=bench.method, facts=len(bench.requests), trials=tuple(trials), best=best_of(trials))


def best_of(trials: Sequence[Trial]) -> Trial:
    """The first of the highest scores: the starting point stays where nothing beats it."""
    return max(trials, key=lambda trial: trial.score)


def _marks(shares: Sequence[tuple[int, dict[str, float]]], risen: float) -> Marks:
    """Shares of groups, each with its count of requests, as means over requests."""
    total = sum(count for count, _ in shares)
    mean = {role: sum(count * found.get(role, 0.0) for count, found in shares) / total
            for role in ("edit", "paraphrase", "neighbour")}
    ratio = math.exp(min(risen, 50.0)) if math.isfinite(risen) else math.exp(50.0)
    return Marks(success=mean["edit"], paraphrase=mean["paraphrase"], neighbourhood=mean["neighbour"], perplexity_ratio=ratio)


def known_of(checkpoint: Checkpoint, facts: Sequence[KnownFact], house: House) -> tuple[KnownFact, ...]:
    """The facts whose answer is the model's first choice."""

    def work(_: Path) -> dict[str, Any]:
        from editors.loading import load

        requests = [UpdateRequest(id=str(number), prompt=fact.prompt, subject=fact.subject, target=fact.answer, was=fact.answer)
                    for number, fact in enumerate(facts)]
        return {"known": Examiner(load(checkpoint, house.device), requests, FEWEST_HELD_OUT).knows()}

    listed = [[fact.prompt, fact.subject, fact.answer] for fact in facts]
    done = house.workspace.run("known-1", {"base": checkpoint.digest, "facts": digest_document(listed)}, work)
    return tuple(fact for fact, is_known in zip(facts, done.document["known"], strict=True) if is_known)


def _keep(found: Calibrated) -> None:
    """Write the calibration and its picture; methods that an earlier sweep found and this one left out stay."""
    from tasks.calibration_picture import draw

    entry = yaml.safe_load(found.path.read_text()) if found.path.exists() else {"methods": {}}
    methods = dict(entry["methods"])
    for swept in found.methods:
        methods[swept.method] = {"plain": {"layers": list(swept.best.layers), "options": dict(swept.best.options)}}
    source = f"measured here by suture calibrate, on counterfactual edits of facts that the model knows ({found.known} known)"
    document = {"base_digest": found.base_digest, "model": found.base, "source": source, "methods": methods}
    write_whole(found.path, lambda scratch: scratch.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8"))
    write_whole(found.picture, lambda scratch: draw(found.methods, scratch))
