"""DAMA: FFN outputs lose the directions along which a term asks for one group or the other.

For each term two changes of the state at the prompt's last token are searched, one that makes the first group's word likely
and one for the second. Their difference V holds no more than the group. In each layer, from below, partial least squares
finds the directions B of the FFN's outputs on those prompts that covary with V, and the output matrix becomes

    W' = (I - B B') W

at every token. Definitional terms keep their group as far as a projection can (2DAMA): directions F of their outputs that
covary with their factual score are taken out of B first, so that F' W' = F' W.

What we changed: V is searched once, at the highest layer, because changes of the residual stream add up; the rank follows
the hidden size (`rank` None: D / 16 and never more than the prompts span), where the authors' 128 to 1024 would be all of a
small model; the projection is kept as the factors of W' - W, of rank c. A bias of the output matrix is left as it is.

Source: Limisiewicz et al. 2024, "Debiasing Algorithm through Model Adaptation", arXiv:2310.18913, section 3; Limisiewicz et
al. 2025, "Dual Debiasing", arXiv:2501.10150, for keeping the factual signal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from editors.contract import EditBatch, Estimate, Location, Progress, silent
from editors.corpus import default_corpus
from editors.costs import estimate_of, work_of
from editors.errors import ConfigError
from editors.facts import Facts
from editors.keys import KeyReader
from editors.leaning import LeaningToken, factual_uses, leaning_facts
from editors.loading import LoadedModel
from editors.moments import Corpus, second_moments
from editors.options import check_ranges, config_from
from editors.partial_least_squares import covarying_directions, without
from editors.patch import Patch, TensorEdit, applied
from editors.prospect import Prospect
from editors.provenance import provenance_of
from editors.target_search import SearchConfig, search_targets
from editors.writing import as_edit

SHARE = 16
"""Of the hidden size's dimensions one in so many may be taken, where no rank is named."""


@dataclass(frozen=True)
class DamaConfig:
    """Options of DAMA. `layers` come with the location."""

    rank: int | None = None
    """Directions taken from each layer's output. Range [1, 65536]; None: a sixteenth of the hidden size."""
    keep_factual: int = 4
    """Directions that carry the factual score of definitional terms, which stay. Range [0, 1024]; 0 is DAMA, more 2DAMA."""
    whitening_weight: float = 0.0
    """Weight of ordinary text in whitening the keys. Range [0, 1e9]; 0 does not whiten. Authors: 20000, later 0."""
    read_at: LeaningToken = "prompt_last"
    """Whose outputs are looked at: the token before the group word (authors) or the term's last."""
    search: SearchConfig = field(default_factory=lambda: SearchConfig(steps=20, kl_weight=0.0, stop_loss=0.3))
    """How the changes are searched. Authors: 20 steps."""

    def __post_init__(self) -> None:
        check_ranges(self, rank="[1, 65536]", keep_factual="[0, 1024]", whitening_weight="[0, 1e9]")
        if self.read_at not in ("prompt_last", "term_last"):
            raise ConfigError(f"read_at must be prompt_last or term_last, got {self.read_at!r}", "set read_at to prompt_last")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> DamaConfig:
        """The config for a sheet's options.

        Raises:
            ConfigError: an option is unknown or outside its range.
        """
        return config_from(cls, options, "dama")


def two_sided(facts: Facts) -> Facts:
    """Every fact twice: the first half of the owners learns the first group's word, the second half the other."""
    rows = [replace(row, row=replace(row.row, owner=row.row.owner + side * facts.count), labels=row.labels[side:side + 1])
            for side in (0, 1) for row in facts.targets]
    return replace(facts, targets=tuple(rows))


def whitened(keys: Tensor, moment: Tensor, weight: float) -> Tensor:
    """U (w C + U'U)^-1, float64, for keys U (N, F) and the second moment C (F, F) of ordinary text."""
    keys = keys.double()
    system = weight * moment.to(keys.device, torch.float64) + keys.T @ keys
    system.diagonal().add_(1e-6 * system.diagonal().mean())
    return torch.cholesky_solve(keys.T, torch.linalg.cholesky(system)).T


class Dama:
    """The editor. Constructed with its frozen config; `plan` leaves the model bit-identical."""

    name: ClassVar[str] = "dama"
    purposes: ClassVar[tuple[str, ...]] = ("debias",)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Dama:
        """The editor for a sheet's options; raises ConfigError for an unknown one or one outside its range."""
        return cls(DamaConfig.from_options(options))

    def __init__(self, config: DamaConfig | None = None, corpus: Corpus | None = None) -> None:
        self.config = config or DamaConfig()
        self.corpus = corpus

    def estimate(self, ahead: Prospect) -> Estimate:
        """Bytes, FLOPs and seconds of the searches and of reading the outputs."""
        facts = two_sided(leaning_facts(ahead, ahead.batch, 0, self.config.read_at))
        work = work_of(facts, 1.0, ahead.layers, self.config.search.steps, self.config.search.token_budget)
        return estimate_of(ahead, replace(work, uses_moments=self.config.whitening_weight > 0))

    def plan(self, model: LoadedModel, batch: EditBatch, location: Location, statistics: Path,
             progress: Progress = silent, earlier: Sequence[Patch] = ()) -> Patch:  # noqa: ARG002 (nothing is held)
        """The patch that carries out the batch; `earlier` patches are in the model, and a projection holds no keys.

        Raises:
            ArchitectureError: the family normalises its FFN output.
            SheetError: the group words of a request begin with one token.
            IntegrityError: the search met numbers that are not finite.
        """
        model.anatomy.require_plain_output(self.name)
        config, layers = self.config, sorted(location.layers)
        facts = leaning_facts(model, batch, 0, config.read_at)
        found = search_targets(model, layers[-1], two_sided(facts).targets, config.search, progress)
        difference = found.change[:facts.count] - found.change[facts.count:]
        corpus, moments = None, dict[int, Tensor]()
        if config.whitening_weight > 0:
            corpus = self.corpus or default_corpus(model, batch.base_digest, statistics, progress)
            moments = second_moments(model, layers, corpus, statistics, progress, batch.base_digest)
        edits = self._project(model, batch, facts, layers, difference, moments, progress)
        return Patch(edits, provenance_of(self.name, config, model, batch, location, edits, corpus, found))

    def _project(self, model: LoadedModel, batch: EditBatch, facts: Facts, layers: Sequence[int], difference: Tensor,
                 moments: Mapping[int, Tensor], progress: Progress) -> tuple[TensorEdit, ...]:
        """One edit a layer, each found under those below."""
        definitional, scores = factual_uses(model, batch, self.config.read_at)
        reader = KeyReader(model, facts.keys, layers[0], self.config.search.token_budget)
        factual = KeyReader(model, definitional, layers[0], self.config.search.token_budget) if definitional else None
        rank = self.config.rank or max(1, model.anatomy.hidden_size // SHARE)
        edits: list[TensorEdit] = []
        with ExitStack() as stack:
            for place, layer in enumerate(layers):
                reader.advance(layer)
                keys, weight = reader.read(layer)[0].T.double(), _weight(model, layer)
                seen = whitened(keys, moments[layer], self.config.whitening_weight) if layer in moments else keys
                taken = covarying_directions(seen @ weight.T, difference, rank)
                if factual is not None and self.config.keep_factual:
                    factual.advance(layer)
                    outputs = factual.read(layer)[0].T.double() @ weight.T
                    taken = without(taken, covarying_directions(outputs, scores.to(outputs), self.config.keep_factual))
                edits.append(as_edit(model, layer, -taken, taken.T @ weight))
                stack.enter_context(applied(model.model, Patch((edits[-1],))))
                progress("layers projected", place + 1, len(layers))
        return tuple(edits)


def _weight(model: LoadedModel, layer: int) -> Tensor:
    """The FFN output matrix (D, F), float64."""
    weight = model.model.get_parameter(model.anatomy.mlp_output_parameter(layer)).detach().double()
    return weight if model.anatomy.layout == "out_in" else weight.T
