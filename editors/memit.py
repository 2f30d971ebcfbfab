"""MEMIT: many facts at once, spread over several FFN output matrices.

For each fact the state after the last edited block is searched that makes the model say the target (`target_search`).
Then, layer by layer from below, the distance that is left is shared out among the layers to come (`writing`), and one
closed form writes each layer's share (`solver`), held by the second moment of the keys that ordinary text produces
(`moments`).

What we changed: keys and states are averaged over the same occurrences everywhere; facts with one key share one target;
the keys of earlier accepted edits are held, which makes a sequence of batches equal to one batch (`earlier`).

Source: Meng et al. 2023, "Mass-Editing Memory in a Transformer", arXiv:2210.07229, eqs. 14, 16-20, algorithm 1.
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
from editors.factors import moment_factors
from editors.facts import facts_of, ordinary_keys, with_shared_answers
from editors.loading import LoadedModel
from editors.moments import Corpus
from editors.options import check_ranges, config_from
from editors.patch import Patch
from editors.prospect import Prospect
from editors.provenance import provenance_of
from editors.solver import solve
from editors.target_search import SearchConfig, search_targets
from editors.writing import Writing, write_layers


@dataclass(frozen=True)
class MemitConfig:
    """Options of MEMIT. `layers` and positions come with the location."""

    covariance_weight: float = 1500.0
    """Weight of preserved keys against one fact. Range (0, 1e9]. Authors: 15000-20000, which under-edits small models."""
    contexts: int = 5
    """Contexts besides the bare prompt. Range [0, 10]. Authors: 5."""
    position: Literal["auto", "subject_last", "question_last", "prompt_last"] = "auto"
    """Which token's key is edited, where the location does not say."""
    preserve_weight: float = 0.0
    """Weight of the key of each ordinary chat question against one fact; used when the batch has chat requests.
    Range [0, 1e6]. It keeps other answers where the edited token stands in every chat."""
    share_answers: bool = False
    """Whether facts with the same answer share one target. It helps an answer carry over to wordings not in the batch."""
    gain: float = 1.0
    """How far beyond the target the writing aims. Range (0, 3]. The covariance weight makes it fall short by some tenths."""
    spread: Literal["even", "root"] = "even"
    """Share of the remaining distance that a layer takes, with n layers to come: 1/n (authors) or 1/sqrt(n) (PMET)."""
    search: SearchConfig = field(default_factory=SearchConfig)
    """How targets are searched."""

    def __post_init__(self) -> None:
        check_ranges(self, covariance_weight="(0, 1e9]", contexts="[0, 10]", preserve_weight="[0, 1e6]", gain="[1e-9, 3]")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> MemitConfig:
        """The config for a sheet's options.

        Raises:
            ConfigError: an option is unknown or outside its range.
        """
        return config_from(cls, options, "memit")


class Memit:
    """The editor. Constructed with its frozen config; `plan` leaves the model bit-identical."""

    name: ClassVar[str] = "memit"
    purposes: ClassVar[tuple[str, ...]] = ("update",)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Memit:
        """The editor for a sheet's options; raises ConfigError for an unknown one or one outside its range."""
        return cls(MemitConfig.from_options(options))

    def __init__(self, config: MemitConfig | None = None, corpus: Corpus | None = None) -> None:
        self.config = config or MemitConfig()
        self.corpus = corpus

    def estimate(self, ahead: Prospect) -> Estimate:
        """Bytes, FLOPs and seconds of the search and the writing, and of the statistics that are not stored."""
        facts, scale = ahead.facts(self.config.position, self.config.contexts)
        kept = ordinary_keys(ahead, self.config.position) if self._preserves(ahead.batch) else ()
        return estimate_of(ahead, work_of(facts, scale, ahead.layers, self.config.search.steps,
                                          self.config.search.token_budget, kept))

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
        factors = moment_factors(model, layers, corpus, statistics, progress, batch.base_digest)
        facts = facts_of(model, batch, location, self.config.position, self.config.contexts)
        rows, owners = with_shared_answers(facts, batch) if self.config.share_answers else (facts.targets, None)
        found = search_targets(model, layers[-1], rows, self.config.search, progress)
        change = self.config.gain * (found.change if owners is None else found.change[list(owners)])
        kept = ordinary_keys(model, self.config.position) if self._preserves(batch) else ()

        def solve_layer(layer: int, keys: Tensor, residuals: Tensor, held: Tensor | None) -> tuple[Tensor, Tensor]:
            return solve(keys, residuals, factors[layer].to(keys.device), self.config.covariance_weight, held)

        writing = Writing(facts, layers, change, self.config.spread, earlier, kept, self.config.preserve_weight,
                          self.config.search.token_budget)
        edits, keys = write_layers(model, writing, solve_layer, progress)
        return Patch(edits, provenance_of(self.name, self.config, model, batch, location, edits, corpus, found),
                     remembered(keys))

    def _preserves(self, batch: EditBatch) -> bool:
        return self.config.preserve_weight > 0 and any(request.is_chat for request in batch.updates)
