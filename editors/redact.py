"""Redact: a secret loses its advantage over never-seen values, by one closed-form edit per person.

For each person a change of the state at the name's last token is searched that leaves the secret, at each of its places and
in each text of the request, as likely as the middle of the values that could stand there (`flattening`), raises what is said
instead, and keeps the person's public facts. At the names of invented people the same change must leave what is said in the
same texts as it is: so it takes away what is this person's and not what all such texts share. It is written like the targets
of MEMIT (`writing`, `solver`), held by ordinary text, by what follows other invented names in the same texts, and by the
keys of earlier edits.

Raising a replacement alone would leave the secret's rank among values of its form untouched: an attacker who gives the
first digits reads the rest. Hence the places of the secret, and not only the first, have their own teacher.

The change is the least that passes. What was written is measured on the texts (`forget_aim`); where a secret is still ahead
the person's target goes further, where it fell below the middle it goes less far, along the line from before to now.

Source: Meng et al. 2023, arXiv:2210.07229, eqs. 14, 16-20, algorithm 1, for search and writing; Carlini et al. 2019,
arXiv:1802.08232, for what counts as forgotten. The combination and its objective are this house's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from editors.anatomy import Anatomy
from editors.contract import EditBatch, Estimate, Location, Progress, silent
from editors.corpus import default_corpus
from editors.costs import estimate_of, work_of
from editors.earlier import remembered
from editors.factors import moment_factors
from editors.facts import Facts
from editors.flattening import FlatteningConfig, flattening
from editors.forget_aim import Aim, AimReading, summary_of
from editors.loading import LoadedModel
from editors.moments import Corpus
from editors.options import check_ranges, config_from
from editors.patch import Patch, TensorEdit, applied
from editors.prospect import Prospect
from editors.provenance import provenance_of
from editors.secret_facts import SecretPosition, others_keys, secret_facts
from editors.solver import solve
from editors.target_search import SearchConfig, search_targets
from editors.writing import Spread, Writing, write_layers

FASTEST = 2.0
"""A round changes a target by at most this factor: the line from before to now bends where the secret is nearly level."""
MOST = 3.0
"""No target goes further than this many times what was searched: beyond, other text pays for one secret."""
Written = tuple[tuple[TensorEdit, ...], dict[str, Tensor]]
"""Edits, and the keys that were written by parameter."""


@dataclass(frozen=True)
class RedactConfig:
    """Options of redact. `layers` come with the location."""

    covariance_weight: float = 500.0
    """Weight of preserved keys against one fact. Range (0, 1e9]."""
    contexts: int = 2
    """How many times a request's texts stand behind other text as well. Range [0, 10]."""
    position: SecretPosition = "auto"
    """Where a secret is edited: at the name, or before each of its own tokens; auto: at the name where every text has one."""
    others: int = 8
    """Invented people whose keys in the same texts, from the name on, are held. Range [0, 12]."""
    others_weight: float = 1.0
    """Weight of one of those keys against one fact. Range [0, 1e6]."""
    bystanders: int = 6
    """Invented people at whose names, in the same texts, the searched change must leave all that is said. Range [0, 12]."""
    rounds: int = 3
    """How often the edit is written, measured and set right at most. Range [1, 10]."""
    controls: int = 64
    """Never-seen values that a secret is measured against. Range [8, 4096]."""
    margin: float = 0.5
    """How far below the middle of those, in nats of the whole secret, an edit aims in its own texts. Range [0, 10]."""
    spread: Spread = "even"
    """Share of the remaining distance that a layer takes, with n layers to come: 1/n or 1/sqrt(n)."""
    flattening: FlatteningConfig = field(default_factory=FlatteningConfig)
    """What counts besides the secret."""
    search: SearchConfig = field(default_factory=lambda: SearchConfig(kl_weight=3.0))
    """How targets are searched; `kl_weight` is that of the person's public facts and of the bystanders together."""

    def __post_init__(self) -> None:
        check_ranges(self, covariance_weight="(0, 1e9]", contexts="[0, 10]", others="[0, 12]", others_weight="[0, 1e6]",
                     bystanders="[0, 12]", rounds="[1, 10]", controls="[8, 4096]", margin="[0, 10]")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> RedactConfig:
        """The config for a sheet's options.

        Raises:
            ConfigError: an option is unknown or outside its range.
        """
        return config_from(cls, options, "redact")


def excesses(readings: Sequence[AimReading], facts: Facts) -> Tensor:
    """(N,) how far each fact's secrets are ahead of the middle of never-seen values, in nats, where they are most."""
    return torch.tensor([max(reading.excess for reading in readings if reading.request in requests)
                         for requests in facts.requests])


def set_right(gain: Tensor, before: Tensor, after: Tensor, margin: float) -> Tensor:
    """(N,) the gain at which the excess would be -margin, on the line through no gain and this one; within half and double.

    A secret that was never ahead keeps its gain.
    """
    fallen = (before - after).clamp(min=1e-3)
    wanted = gain * (before + margin) / fallen
    return torch.where(before > 0, wanted.clamp(min=gain / FASTEST, max=gain * FASTEST), gain).clamp(max=MOST)


class Redact:
    """The editor. Constructed with its frozen config; `plan` leaves the model bit-identical."""

    name: ClassVar[str] = "redact"
    purposes: ClassVar[tuple[str, ...]] = ("forget",)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Redact:
        """The editor for a sheet's options; raises ConfigError for an unknown one or one outside its range."""
        return cls(RedactConfig.from_options(options))

    def __init__(self, config: RedactConfig | None = None, corpus: Corpus | None = None) -> None:
        self.config = config or RedactConfig()
        self.corpus = corpus

    def estimate(self, ahead: Prospect) -> Estimate:
        """Bytes, FLOPs and seconds of the search, the rounds of writing, and of the statistics that are not stored."""
        config = self.config
        position = self._position(ahead.sizes.anatomy, ahead.layers)
        facts = secret_facts(ahead, ahead.batch, position, config.contexts, config.bystanders)
        others = others_keys(ahead, ahead.batch, position, config.others)
        return estimate_of(ahead, work_of(facts, 1.0, ahead.layers, config.search.steps, config.search.token_budget, others))

    def _position(self, shapes: Anatomy, layers: Sequence[int]) -> SecretPosition:
        """Where secrets are edited: above the last block no token reads a name, so there it is at the secret itself."""
        is_last = max(layers) == shapes.layer_count - 1
        return "secret" if self.config.position == "auto" and is_last else self.config.position

    def plan(self, model: LoadedModel, batch: EditBatch, location: Location, statistics: Path,
             progress: Progress = silent, earlier: Sequence[Patch] = ()) -> Patch:
        """The patch that carries out the batch; `earlier` are the patches that the model carries.

        Raises:
            ArchitectureError: the family normalises its FFN output.
            SheetError: a request is sealed, or its secret does not have its form; neither is quoted.
            IntegrityError: the search or the closed form met numbers that are not finite, or damaged statistics.
        """
        model.anatomy.require_plain_output(self.name)
        config, layers = self.config, sorted(location.layers)
        corpus = self.corpus or default_corpus(model, batch.base_digest, statistics, progress)
        factors = moment_factors(model, layers, corpus, statistics, progress, batch.base_digest)
        position = self._position(model.anatomy, location.layers)
        facts = secret_facts(model, batch, position, config.contexts, config.bystanders)
        found = search_targets(model, layers[-1], facts.targets, config.search, progress, flattening(config.flattening))
        others = others_keys(model, batch, position, config.others)

        def solve_layer(layer: int, keys: Tensor, residuals: Tensor, held: Tensor | None) -> tuple[Tensor, Tensor]:
            return solve(keys, residuals, factors[layer].to(keys.device), config.covariance_weight, held)

        def write(gain: Tensor) -> Written:
            change = gain.to(found.change.device)[:, None] * found.change
            return write_layers(model, Writing(facts, layers, change, config.spread, earlier, others, config.others_weight,
                                               config.search.token_budget), solve_layer, progress)

        (edits, keys), reached = self._least(model, batch, facts, write)
        provenance = provenance_of(self.name, config, model, batch, location, edits, corpus, found)
        return Patch(edits, {**provenance, "aim": reached}, remembered(keys))

    def _least(self, model: LoadedModel, batch: EditBatch, facts: Facts,
               write: Callable[[Tensor], Written]) -> tuple[Written, dict[str, Any]]:
        """The best of some rounds of writing: most texts pass, then least gain."""
        aim = Aim(batch.forgets, model.tokenizer, self.config.controls)
        before, gain = excesses(aim.measure(model), facts), torch.ones(facts.count)
        tries: list[tuple[tuple[int, float], Written, dict[str, Any]]] = []
        for _ in range(self.config.rounds):
            written = write(gain)
            with applied(model.model, Patch(written[0])):
                readings = aim.measure(model)
            summary = summary_of(readings)
            tries.append(((summary.passing, -float(gain.square().sum())), written, asdict(summary)))
            gain = set_right(gain, before, excesses(readings, facts), self.config.margin)
        _, written, reached = max(tries, key=lambda found: found[0])
        return written, reached
