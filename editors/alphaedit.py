"""AlphaEdit: many facts at once, each update projected onto the near null space of the keys to be preserved.

Where MEMIT weighs ordinary text against the facts, AlphaEdit forbids: the update may only use directions that ordinary
text's keys leave almost empty (`null_space`), so that D K0 is near zero whatever is written. In what is left the closed
form is D = R K' P (Kp Kp' P + K K' P + L2 I)^-1, Kp the keys of earlier edits (`solver.solve_projected`).
Targets, keys and the walk through the layers are MEMIT's.

What we changed: how much is preserved is a share of the spectrum's energy and not an absolute eigenvalue, and L2 is in
units of the energy that ordinary keys have in a direction of the null space, so that both mean the same on every model
(L2 then is MEMIT's covariance weight with C's rest taken as even); the solve is as large as the number of keys and
never F x F; the earlier keys are those that each patch remembers, not read again through the whole model.

Source: Fang et al. 2025, "AlphaEdit: Null-Space Constrained Knowledge Editing", arXiv:2410.02355, eqs. 6-14.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import Tensor

from editors.contract import EditBatch, Estimate, Location, Progress, silent
from editors.corpus import default_corpus
from editors.costs import estimate_of, work_of
from editors.earlier import remembered
from editors.facts import facts_of
from editors.loading import LoadedModel
from editors.moments import Corpus
from editors.null_space import moment_spectra, null_space
from editors.options import check_ranges, config_from
from editors.patch import Patch
from editors.prospect import Prospect
from editors.provenance import provenance_of
from editors.solver import solve_projected
from editors.target_search import SearchConfig, search_targets
from editors.writing import Writing, write_layers


@dataclass(frozen=True)
class AlphaEditConfig:
    """Options of AlphaEdit. `layers` and positions come with the location."""

    preserved_energy: float = 0.3
    """Share of the second moment's trace that the update may not touch. Range [0, 1). Authors: an eigenvalue above 0.02,
    which on SmolLM2 is 0.4 to 0.7 of the trace; there more than 0.3 cost perplexity (the rest has to be written harder)."""
    ridge: float = 500.0
    """L2, in units of the mean eigenvalue of the second moment inside the null space. Range (0, 1e9]. Authors: 10, absolute."""
    contexts: int = 5
    """Contexts besides the bare prompt. Range [0, 10]. Authors: 5."""
    position: Literal["auto", "subject_last", "question_last", "prompt_last"] = "auto"
    """Which token's key is edited, where the location does not say."""
    search: SearchConfig = field(default_factory=SearchConfig)
    """How targets are searched."""

    def __post_init__(self) -> None:
        check_ranges(self, preserved_energy="[0, 1)", ridge="(0, 1e9]", contexts="[0, 10]")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> AlphaEditConfig:
        """The config for a sheet's options.

        Raises:
            ConfigError: an option is unknown or outside its range.
        """
        return config_from(cls, options, "alphaedit")


class AlphaEdit:
    """The editor. Constructed with its frozen config; `plan` leaves the model bit-identical."""

    name: ClassVar[str] = "alphaedit"
    purposes: ClassVar[tuple[str, ...]] = ("update",)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> AlphaEdit:
        """The editor for a sheet's options; raises ConfigError for an unknown one or one outside its range."""
        return cls(AlphaEditConfig.from_options(options))

    def __init__(self, config: AlphaEditConfig | None = None, corpus: Corpus | None = None) -> None:
        self.config = config or AlphaEditConfig()
        self.corpus = corpus

    def estimate(self, ahead: Prospect) -> Estimate:
        """Bytes, FLOPs and seconds of the search and the writing, and of the statistics that are not stored."""
        facts, scale = ahead.facts(self.config.position, self.config.contexts)
        return estimate_of(ahead, work_of(facts, scale, ahead.layers, self.config.search.steps,
                                          self.config.search.token_budget))

    def plan(self, model: LoadedModel, batch: EditBatch, location: Location, statistics: Path,
             progress: Progress = silent, earlier: Sequence[Patch] = ()) -> Patch:
        """The patch that carries out the batch; `earlier` are the patches that the model carries.

        Raises:
            ArchitectureError: the family normalises its FFN output.
            SheetError: a position is not in its prompt.
            IntegrityError: the search or the closed form met numbers that are not finite, or damaged statistics.
        """
        model.anatomy.require_plain_output(self.name)
        layers = sorted(location.layers)
        corpus = self.corpus or default_corpus(model, batch.base_digest, statistics, progress)
        spectra = moment_spectra(model, layers, corpus, statistics, progress, batch.base_digest)
        facts = facts_of(model, batch, location, self.config.position, self.config.contexts)
        found = search_targets(model, layers[-1], facts.targets, self.config.search, progress)

        def solve_layer(layer: int, keys: Tensor, residuals: Tensor, held: Tensor | None) -> tuple[Tensor, Tensor]:
            free = null_space(spectra[layer], self.config.preserved_energy).to(keys.device)
            return solve_projected(keys, residuals, free, self.config.ridge * free.energy, held)

        writing = Writing(facts, layers, found.change, earlier=earlier, token_budget=self.config.search.token_budget)
        edits, keys = write_layers(model, writing, solve_layer, progress)
        return Patch(edits, provenance_of(self.name, self.config, model, batch, location, edits, corpus, found),
                     remembered(keys))
