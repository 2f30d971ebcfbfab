"""ROME: one fact by a rank-one change of one FFN output matrix; N facts by a change of rank N that meets all exactly.

The FFN's output at the subject's last token is searched that makes the model say the target (`target_search`; a change
of the FFN's output is the same change of the block's output). The matrix is then changed so that it maps the fact's key
to that value and, among all such matrices, disturbs ordinary text's keys least (`solver` with weight 0).

What we changed: the key, its present value and the denominator all come from one averaged key (the authors mix the
averaged and the bare key, which makes some edits explode: Gupta et al. 2024, arXiv:2403.07175); several facts are
written at once instead of one after another, so that none undoes another; the keys of earlier edits are held, weighted
against ordinary text as MEMIT weights its own.

Source: Meng et al. 2022, "Locating and Editing Factual Associations in GPT", arXiv:2202.05262, eqs. 2-4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from editors.contract import EditBatch, Estimate, Location, Progress, silent
from editors.corpus import default_corpus
from editors.costs import estimate_of, work_of
from editors.earlier import earlier_keys, remembered
from editors.errors import ConfigError
from editors.factors import moment_factors
from editors.facts import facts_of
from editors.keys import KeyReader
from editors.loading import LoadedModel
from editors.moments import Corpus
from editors.options import check_ranges, config_from
from editors.patch import Patch
from editors.prospect import Prospect
from editors.provenance import provenance_of
from editors.solver import solve
from editors.target_search import SearchConfig, search_targets
from editors.writing import as_edit


@dataclass(frozen=True)
class RomeConfig:
    """Options of ROME. The layer and positions come with the location."""

    contexts: int = 3
    """Contexts besides the bare prompt. Range [0, 10]. Authors: 20."""
    position: Literal["auto", "subject_last", "question_last", "prompt_last"] = "auto"
    """Which token's key is edited, where the location does not say."""
    covariance_weight: float = 1500.0
    """Weight of preserved text against the key of one earlier edit. Range (0, 1e9]. The fact itself is met exactly."""
    search: SearchConfig = field(default_factory=SearchConfig)
    """How targets are searched."""

    def __post_init__(self) -> None:
        check_ranges(self, contexts="[0, 10]", covariance_weight="(0, 1e9]")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> RomeConfig:
        """The config for a sheet's options.

        Raises:
            ConfigError: an option is unknown or outside its range.
        """
        return config_from(cls, options, "rome")


class Rome:
    """The editor. Constructed with its frozen config; `plan` leaves the model bit-identical."""

    name: ClassVar[str] = "rome"
    purposes: ClassVar[tuple[str, ...]] = ("update",)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Rome:
        """The editor for a sheet's options; raises ConfigError for an unknown one or one outside its range."""
        return cls(RomeConfig.from_options(options))

    def __init__(self, config: RomeConfig | None = None, corpus: Corpus | None = None) -> None:
        self.config = config or RomeConfig()
        self.corpus = corpus

    def estimate(self, ahead: Prospect) -> Estimate:
        """Bytes, FLOPs and seconds of the search and the writing, and of the statistics that are not stored."""
        facts, scale = ahead.facts(self.config.position, self.config.contexts)
        return estimate_of(ahead, work_of(facts, scale, ahead.layers, self.config.search.steps,
                                          self.config.search.token_budget))

    def plan(self, model: LoadedModel, batch: EditBatch, location: Location, statistics: Path,
             progress: Progress = silent, earlier: Sequence[Patch] = ()) -> Patch:
        """The patch that carries out the batch, in one layer; `earlier` are the patches that the model carries.

        Raises:
            ArchitectureError: the family normalises its FFN output.
            ConfigError: the location names more than one layer.
            SheetError: a position is not in its prompt.
            IntegrityError: two facts have one key, numbers are not finite, or statistics are damaged.
        """
        model.anatomy.require_plain_output(self.name)
        if len(location.layers) != 1:
            raise ConfigError(f"rome edits one layer, got {list(location.layers)}", "give one layer, or use memit")
        layer = location.layers[0]
        corpus = self.corpus or default_corpus(model, batch.base_digest, statistics, progress)
        factors = moment_factors(model, [layer], corpus, statistics, progress, batch.base_digest)
        facts = facts_of(model, batch, location, self.config.position, self.config.contexts)
        found = search_targets(model, layer, facts.targets, self.config.search, progress)
        keys, _ = KeyReader(model, facts.keys, layer, self.config.search.token_budget).read(layer)
        parameter = model.anatomy.mlp_output_parameter(layer)
        left, right = solve(keys, found.change.T, factors[layer].to(keys.device), 0.0,
                            earlier_keys(earlier, parameter, keys), self.config.covariance_weight)
        edits = (as_edit(model, layer, left, right),)
        return Patch(edits, provenance_of(self.name, self.config, model, batch, location, edits, corpus, found),
                     remembered({parameter: keys}))
