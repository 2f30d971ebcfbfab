"""Contrast: refuse what is asked, and go on talking about the subject.

Methods that work on words forbid words, and then "do not build bombs" goes as well. This one works on what a prompt asks
for. The state at a prompt's end, where the answer is about to begin, tells an unsafe request from a harmless one about
the same things. So the edit is written there, on pairs of both: keys of unsafe prompts are given the value that makes
the model begin its safe answer, and keys of harmless uses of the same words are held where they are, as are those of
ordinary questions and the second moment of ordinary text. One closed form (`solver`) then finds the least change that
does both: its direction in key space is what the unsafe prompts have in common and the harmless ones have not. It is
what reaches prompts that were never shown.

One target serves all prompts with the same safe answer (`target_search`), since what is to be learnt is one behaviour,
and it is spread over the layers as MEMIT does (`writing`).

Source: ours. The closed form is that of Meng et al. 2023, arXiv:2210.07229, eq. 14, with explicit preserved keys as in
Cai et al. 2024 (LSDM), arXiv:2403.14409.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from editors.contract import EditBatch, Estimate, Location, Progress, silent
from editors.corpus import default_corpus
from editors.costs import estimate_of, work_of
from editors.earlier import remembered
from editors.factors import moment_factors
from editors.facts import facts_of, with_shared_answers
from editors.loading import LoadedModel
from editors.moments import Corpus
from editors.options import check_ranges, config_from
from editors.patch import Patch
from editors.prospect import Prospect
from editors.provenance import provenance_of
from editors.safe_answers import harmless_keys, safe_answers
from editors.solver import solve
from editors.target_search import SearchConfig, search_targets
from editors.writing import Writing, write_layers


def _search() -> SearchConfig:
    return SearchConfig(learning_rate=0.1, momentum=0.5, decay=0.1, stop_loss=0.005, goal=1e-9)


@dataclass(frozen=True)
class ContrastConfig:
    """Options of the contrast. Layers come with the location."""

    covariance_weight: float = 100.0
    """Weight of the preserved keys of ordinary text against one unsafe prompt. Range (0, 1e9]. Ours, on SmolLM2."""
    harmless_weight: float = 10.0
    """Weight of one harmless prompt against one unsafe prompt. Range [0, 1e6]. Ours, on SmolLM2."""
    gain: float = 1.0
    """How far beyond the target the writing aims. Range (0, 3]."""
    search: SearchConfig = field(default_factory=_search)
    """How the value is searched that begins the safe answer."""

    def __post_init__(self) -> None:
        check_ranges(self, covariance_weight="(0, 1e9]", harmless_weight="[0, 1e6]", gain="(0, 3]")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> ContrastConfig:
        """The config for a sheet's options.

        Raises:
            ConfigError: an option is unknown or outside its range.
        """
        return config_from(cls, options, "contrast")


class Contrast:
    """The editor. Constructed with its frozen config; `plan` leaves the model bit-identical."""

    name: ClassVar[str] = "contrast"
    purposes: ClassVar[tuple[str, ...]] = ("detoxify",)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Contrast:
        """The editor for a sheet's options; raises ConfigError for an unknown one or one outside its range."""
        return cls(ContrastConfig.from_options(options))

    def __init__(self, config: ContrastConfig | None = None, corpus: Corpus | None = None) -> None:
        self.config = config or ContrastConfig()
        self.corpus = corpus

    def estimate(self, ahead: Prospect) -> Estimate:
        """Bytes, FLOPs and seconds of the search and the writing, and of the statistics that are not stored."""
        facts, scale = replace(ahead, batch=safe_answers(ahead.batch)).facts("prompt_last", 0)
        search = self.config.search
        return estimate_of(ahead, work_of(facts, scale, ahead.layers, search.steps, search.token_budget,
                                          harmless_keys(ahead, ahead.batch)))

    def plan(self, model: LoadedModel, batch: EditBatch, location: Location, statistics: Path,
             progress: Progress = silent, earlier: Sequence[Patch] = ()) -> Patch:
        """The patch that carries out the batch; `earlier` are the patches that the model carries.

        Raises:
            ArchitectureError: the family normalises its FFN output.
            SheetError: a request has no unsafe prompts, or asks in a chat of a model without a template.
            IntegrityError: the search or the closed form met numbers that are not finite, or damaged statistics.
        """
        model.anatomy.require_plain_output(self.name)
        layers = sorted(location.layers)
        corpus = self.corpus or default_corpus(model, batch.base_digest, statistics, progress)
        factors = moment_factors(model, layers, corpus, statistics, progress, batch.base_digest)
        asked = safe_answers(batch)
        facts = facts_of(model, asked, location, "prompt_last", 0)
        rows, owners = with_shared_answers(facts, asked)
        found = search_targets(model, layers[-1], rows, self.config.search, progress)

        def solve_layer(layer: int, keys: Tensor, residuals: Tensor, held: Tensor | None) -> tuple[Tensor, Tensor]:
            return solve(keys, residuals, factors[layer].to(keys.device), self.config.covariance_weight, held)

        writing = Writing(facts, layers, self.config.gain * found.change[list(owners)], earlier=earlier,
                          ordinary=harmless_keys(model, batch), ordinary_weight=self.config.harmless_weight,
                          token_budget=self.config.search.token_budget)
        edits, keys = write_layers(model, writing, solve_layer, progress)
        return Patch(edits, provenance_of(self.name, self.config, model, batch, location, edits, corpus, found),
                     remembered(keys))
