"""LSDM: terms lose their lean towards a group by constrained least squares on lower FFN output matrices.

For each term the change of the state after the last edited block is searched that makes both group words equally likely
behind it and leaves all else as it was (`equalising`). Layer by layer from below the distance that is left is shared out
(`writing`), and one closed form writes each layer's share (`solver`):

    D = (V* - W E) E' (E E' + p P P' + w C + r I)^-1

with E the keys of the terms and P those of terms that have their group by meaning, whose present values are explicitly
preserved. Where a stereotype and a meaning move the state along one direction, a projection cannot part them; but they are
said by different words, and a map from keys can tell the words apart.

What we changed: the authors' form has neither C, the second moment of ordinary text, nor r; without them a few hundred keys
leave the system singular, and what is learnt of some terms is learnt by heart. With r the update is a ridge regression on
lexical features, and terms that were not named follow those that were; the gain makes up for what the ridge takes away.

Source: Cai et al. 2024, "Locating and Mitigating Gender Bias in Large Language Models", arXiv:2403.14409, eqs. 12, 15-18;
Meng et al. 2023, arXiv:2210.07229, algorithm 1, for the spread over layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from editors.contract import EditBatch, Estimate, Location, Progress, silent
from editors.corpus import default_corpus
from editors.costs import estimate_of, work_of
from editors.earlier import remembered
from editors.equalising import Equalising
from editors.leaning import definitional_keys, leaning_facts
from editors.loading import LoadedModel
from editors.moments import Corpus, second_moments
from editors.options import check_ranges, config_from
from editors.patch import Patch
from editors.prospect import Prospect
from editors.provenance import provenance_of
from editors.solver import cholesky_factor, solve
from editors.target_search import SearchConfig, search_targets
from editors.writing import Spread, Writing, write_layers


@dataclass(frozen=True)
class LsdmConfig:
    """Options of LSDM. `layers` come with the location."""

    covariance_weight: float = 1.0
    """Weight of one token of ordinary text against one term. Range [0, 1e9]. Authors: 0, explicit keys alone."""
    ridge: float = 1.0
    """Weight of the update's own squared norm, in units of the mean squared norm of the terms' keys. Range [1e-9, 1e3].
    More of it carries over to terms not named, and writes less of what was searched."""
    preserve_weight: float = 4.0
    """Weight of one use of a definitional term against one term. Range [0, 1e6]. Authors: 1."""
    gain: float = 3.8
    """How far beyond equal odds the writing aims. Range (0, 10]. The ridge makes it fall short by about as
    much: on SmolLM2 at gain 3.2 named terms end a tenth beyond level, held-out ones 42% of the way."""
    contexts: int = 0
    """How many times a term stands behind other text as well. Range [0, 6]."""
    spread: Spread = "even"
    """Share of the remaining distance that a layer takes, with n layers to come: 1/n (authors) or 1/sqrt(n)."""
    search: SearchConfig = field(default_factory=lambda: SearchConfig(steps=12, stop_loss=0.002, clamp=1.5))
    """How the changes are searched; `stop_loss` is the divergence from equal odds, in nats."""

    def __post_init__(self) -> None:
        check_ranges(self, covariance_weight="[0, 1e9]", ridge="[1e-9, 1e3]", preserve_weight="[0, 1e6]", gain="[1e-9, 10]",
                     contexts="[0, 6]")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> LsdmConfig:
        """The config for a sheet's options.

        Raises:
            ConfigError: an option is unknown or outside its range.
        """
        return config_from(cls, options, "lsdm")


def system_factor(keys: Tensor, moment: Tensor | None, covariance_weight: float, ridge: float) -> Tensor:
    """Lower Cholesky factor (F, F) float64 of w C + r e I, with e the mean squared norm of the keys (F, N)."""
    energy = keys.double().square().sum(dim=0).mean()
    system = ridge * energy * torch.eye(len(keys), dtype=torch.float64, device=keys.device)
    if moment is not None:
        system += covariance_weight * moment.to(keys.device, torch.float64)
    return cholesky_factor(system)


class Lsdm:
    """The editor. Constructed with its frozen config; `plan` leaves the model bit-identical."""

    name: ClassVar[str] = "lsdm"
    purposes: ClassVar[tuple[str, ...]] = ("debias",)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Lsdm:
        """The editor for a sheet's options; raises ConfigError for an unknown one or one outside its range."""
        return cls(LsdmConfig.from_options(options))

    def __init__(self, config: LsdmConfig | None = None, corpus: Corpus | None = None) -> None:
        self.config = config or LsdmConfig()
        self.corpus = corpus

    def estimate(self, ahead: Prospect) -> Estimate:
        """Bytes, FLOPs and seconds of the search and the writing, and of the statistics that are not stored."""
        facts = leaning_facts(ahead, ahead.batch, self.config.contexts)
        kept = definitional_keys(ahead, ahead.batch, self.config.contexts)
        work = work_of(facts, 1.0, ahead.layers, self.config.search.steps, self.config.search.token_budget, kept)
        return estimate_of(ahead, replace(work, uses_moments=self.config.covariance_weight > 0))

    def plan(self, model: LoadedModel, batch: EditBatch, location: Location, statistics: Path,
             progress: Progress = silent, earlier: Sequence[Patch] = ()) -> Patch:
        """The patch that carries out the batch; `earlier` are the patches that the model carries.

        Raises:
            ArchitectureError: the family normalises its FFN output.
            SheetError: the group words of a request begin with one token.
            IntegrityError: the search or the closed form met numbers that are not finite, or damaged statistics.
        """
        model.anatomy.require_plain_output(self.name)
        config, layers = self.config, sorted(location.layers)
        corpus, moments = self._moments(model, batch, layers, statistics, progress)
        facts = leaning_facts(model, batch, config.contexts)
        found = search_targets(model, layers[-1], facts.targets, config.search, progress, Equalising)
        kept = definitional_keys(model, batch, config.contexts) if config.preserve_weight > 0 else ()

        def solve_layer(layer: int, keys: Tensor, residuals: Tensor, held: Tensor | None) -> tuple[Tensor, Tensor]:
            factor = system_factor(keys, moments.get(layer), config.covariance_weight, config.ridge)
            return solve(keys, residuals, factor, 1.0, held)

        writing = Writing(facts, layers, config.gain * found.change, config.spread, earlier, kept, config.preserve_weight,
                          config.search.token_budget)
        edits, keys = write_layers(model, writing, solve_layer, progress)
        return Patch(edits, provenance_of(self.name, config, model, batch, location, edits, corpus, found),
                     remembered(keys))

    def _moments(self, model: LoadedModel, batch: EditBatch, layers: Sequence[int], statistics: Path,
                 progress: Progress) -> tuple[Corpus | None, dict[int, Tensor]]:
        """The text that is held and its second moments; neither where it has no weight."""
        if self.config.covariance_weight == 0:
            return None, {}
        corpus = self.corpus or default_corpus(model, batch.base_digest, statistics, progress)
        return corpus, second_moments(model, layers, corpus, statistics, progress, batch.base_digest)
