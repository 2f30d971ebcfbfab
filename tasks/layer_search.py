"""Base and method -> Sought: the layers at which edits of known facts do best, beside what a causal trace of them says.

Tracing tells where an answer is recalled, which hardly says where an edit works best (Hase et al. 2023, arXiv:2301.04213).
So layers are tried: each window of the method's sweep edits facts that the base knows. The calibrated layers stay unless
the highest score beats theirs by over a standard error (the rule of Breiman et al. 1984, section 3.4.3): so few edits hardly
tell neighbouring windows apart. The trace of the same facts stands beside it and chooses nothing.

Paid once for a base, method and options. Trials are those of `suture calibrate`, which finds them again and the other way
round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editors.contract import Frozen, UpdateRequest
from editors.digest import digest_document
from editors.errors import ConfigError, IntegrityError
from editors.known_facts import shipped_facts
from editors.loading import Checkpoint
from tasks.calibrate import FEWEST_REQUESTS, Bench, Trial, best_of, known_of, sweep_of
from tasks.exam import NOTHING, Marks, requests_of
from tasks.house import House
from tasks.warm import warm

if TYPE_CHECKING:
    from editors.loading import LoadedModel

TRACED_FACTS = 4
BY_LAYER, BY_WINDOW, PICTURE = "layers.csv", "layer_trials.csv", "layers.png"


class LayerEffect(Frozen):
    """What a layer's feed-forward window recovers of a fact at the subject's last token, with a 95% interval."""

    layer: int
    mean: float
    low: float | None
    high: float | None


class Asked(Frozen):
    """How many questions each share of a trial's marks is of."""

    success: int
    paraphrase: int
    neighbourhood: int

    def error_of(self, marks: Marks) -> float:
        """The standard error of the marks' score, from those of its shares, which are taken for independent."""
        shares = {name: getattr(marks, name) for name in ("success", "paraphrase", "neighbourhood")}
        if min(shares.values()) <= 0:
            return 0.0
        # of the harmonic mean of three by one share: its square over three times the share's
        squares = (share * (1 - share) / getattr(self, name) / share**4 for name, share in shares.items())
        harmonic = len(shares) / sum(1 / share for share in shares.values())
        return harmonic * marks.score / len(shares) * math.sqrt(sum(squares))


class Sought(Frozen):
    """The trials of a method's windows, the calibrated first, and the trace of the facts."""

    method: str
    asked: Asked
    traced: int
    """Facts that were traced."""
    trials: tuple[Trial, ...]
    effects: tuple[LayerEffect, ...]

    @property
    def facts(self) -> int:
        """How many were edited in each trial."""
        return self.asked.success

    @property
    def bar(self) -> float:
        """The score that another window must beat: the calibrated layers', and its standard error."""
        return self.trials[0].score + self.asked.error_of(self.trials[0].marks)

    @property
    def best(self) -> Trial:
        """The trial whose layers are taken."""
        highest = best_of(self.trials)
        return highest if highest.score > self.bar else self.trials[0]

    def effect_at(self, layers: Sequence[int]) -> float:
        """Mean effect of the traced layers among these; 0 where none was traced."""
        found = [effect.mean for effect in self.effects if effect.layer in layers]
        return sum(found) / len(found) if found else 0.0

    @property
    def rank_correlation(self) -> float | None:
        """Spearman's, of effect and score over the windows; None where one of them is the same for all."""
        effects = _ranks([self.effect_at(trial.layers) for trial in self.trials])
        scores = _ranks([trial.score for trial in self.trials])
        middle = (len(scores) + 1) / 2
        spread = math.prod(sum((rank - middle) ** 2 for rank in ranks) for ranks in (effects, scores)) ** 0.5
        together = sum((one - middle) * (other - middle) for one, other in zip(effects, scores, strict=True))
        return together / spread if spread else None


def seek_layers(base: str, checkpoint: Checkpoint, method: str, start: Sequence[int], options: Mapping[str, Any],
                house: House) -> tuple[Sought, Path]:
    """The layers at which edits of known facts do best, and the folder with the tables and the picture.

    Args:
        base: As a sheet names it.
        checkpoint: The base.
        method: Which edits.
        start: Its calibrated layers, which stay where nothing beats them clearly.
        options: Its options, in every trial.
        house: Where trials and statistics are kept.

    Raises:
        ConfigError: the base knows too few of the facts, or the method edits all layers.
        IntegrityError: no trial could be carried out.
    """
    sweep = sweep_of(method)
    windows = tuple(dict.fromkeys((tuple(start), *sweep.windows(checkpoint.anatomy.layer_count))))
    if sweep.width == 0:
        raise ConfigError(f"{method} edits the layers it finds itself, so there are none to be sought", "locate: true")
    requests = requests_of(known_of(checkpoint, shipped_facts(), house), sweep.facts)
    if len(requests) < FEWEST_REQUESTS:
        raise ConfigError(f"{base} knows enough of the shipped facts for {len(requests)} trial edits, {FEWEST_REQUESTS} are "
                          "needed", "name `layers` in the sheet, or suture calibrate MODEL --facts FILE and locate: true")
    inputs = {"base": checkpoint.digest, "method": method, "windows": windows, "options": dict(options),
              "facts": digest_document([request.model_dump(mode="json") for request in requests])}

    def work(folder: Path) -> dict[str, Any]:
        warm(base, ",".join(map(str, sorted({layer for window in windows for layer in window}))), house)
        found = _sought(Bench(checkpoint, method, requests, sweep.together, house), windows, options)
        _write(found, folder)
        return found.model_dump(mode="json")

    done = house.workspace.run("layers-1", inputs, work)
    return Sought.model_validate(done.document), done.folder


def _sought(bench: Bench, windows: Sequence[tuple[int, ...]], options: Mapping[str, Any]) -> Sought:
    trials = []
    for number, window in enumerate(windows):
        bench.house.progress(f"{bench.method} at layers {window[0]}-{window[-1]}", number, len(windows))
        trials.append(bench.trial("layers", window, options))
    bench.house.progress("trial edits", len(windows), len(windows))
    if all(trial.marks == NOTHING for trial in trials):
        raise IntegrityError(f"{bench.method} could not edit {bench.base.folder.name} at any layers that were tried",
                             "name `layers` in the sheet, or another `method`")
    asked = Asked(success=len(bench.requests), paraphrase=sum(len(request.paraphrases) for request in bench.requests),
                  neighbourhood=sum(len(request.neighbours) for request in bench.requests))
    return Sought(method=bench.method, asked=asked, traced=min(TRACED_FACTS, len(bench.requests)), trials=tuple(trials),
                  effects=_effects(bench))


def _effects(bench: Bench) -> tuple[LayerEffect, ...]:
    from editors.loading import load
    from editors.locate.causal_trace import TraceConfig, trace
    from editors.locate.trace_table import role_means

    model: LoadedModel = load(bench.base, bench.house.device)
    config = TraceConfig(kinds=("mlp",), token_limit=4, layer_stride=1, request_limit=TRACED_FACTS)
    # the facts as they stand: the trace follows the model's own answer, which a counterfactual target departs from at once
    facts: list[UpdateRequest] = list(bench.requests)
    means = role_means(trace(model, facts, config, bench.house.progress))
    return tuple(LayerEffect(layer=mean.layer, mean=mean.mean, low=mean.low, high=mean.high)
                 for mean in means if (mean.kind, mean.role) == ("mlp", "subject last"))


def _write(found: Sought, folder: Path) -> None:
    from tasks.layer_evidence import by_layer_csv, by_window_csv, draw

    (folder / BY_LAYER).write_text(by_layer_csv(found), encoding="utf-8")
    (folder / BY_WINDOW).write_text(by_window_csv(found), encoding="utf-8")
    draw(found, folder / PICTURE)


def _ranks(values: Sequence[float]) -> list[float]:
    """From 1; equal values share the mean of their ranks."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) + 1) / 2 for value in values]
