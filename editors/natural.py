"""Natural: the least change of the model's text that gives every answer, by the natural gradient of all facts together.

One forward and one backward of all facts gives, at every edited FFN module, the key k (its input) and the gradient g of the
answer's log-odds with respect to its output, both at the edited token. To first order an update U of the modules raises the
log-odds of fact i by the sum over modules of g_i' U k_i: one number a fact. What U costs the model's own text is, as in
K-FAC, the sum over modules of tr(S U C U') / 2, C the second moment of keys (`moments`) and S that of the text's own
gradients (`sensitivity`). The cheapest update with wanted rises d is, in closed form,

    U = sum_i a_i (S^-1 g_i) (C^-1 k_i)',   a = (Q + slack)^-1 d,   Q_ij = sum over modules (g_i' S^-1 g_j) (k_i' C^-1 k_j)

which needs one solve as large as the number of facts for all modules together. A few such steps are taken, each under the
update so far. Facts with enough stand in Q with a rise of 0: they are held. The facts of earlier patches (`recalled`) take part
as if they were the batch's own. Where the new ones are a tenth of all or more (`anew`), the earlier patches are taken out of
the weights, the update of all facts is solved as one batch of all, and the patch is what that lacks (`replacing`). A few facts
upon many do not pay for that: each plan reads the earlier ones once under the model as it is, since a hundred edits later a
gradient holds something else, and raises again, pass by pass, those that have sunk.

The difference to MEMIT, AlphaEdit and UltraEdit is what is asked of a fact. They prescribe how the whole output changes at
its key, D numbers, and hold D numbers at every other key; here it is the answer's log-odds alone that must rise or stay, so
a thousand facts are a thousand conditions and not a thousand times D. And a direction that text does not feel is cheap.

C and S are of the model's own text and of its sentences as texts of their own (`beginnings`). Measured on
SmolLM2-135M-Instruct, CounterFact, layers 2-15, batches of 100 (`benchmarks.lifelong --editors natural`): 300 edits gave
success 0.990, teacher-forced 0.963, perplexity +1.4%; 1000 gave 0.987, 0.950, +6.3% and neighbourhood -0.075, and so did one
batch of the 1000. With each batch added to those before, which were read anew and raised, 1000 gave 0.991, 0.934, +8.3% and
-0.097; and by rows of 128 tokens alone 0.981, 0.866, +24.9% and -0.109: 81% of what was lost lay at 5% of Wikipedia's tokens,
most of them in the first fifty of a paragraph (by aim 1, enough 0: +24.6%, so that a lower aim is no help). When
earlier facts were held by the gradients that their patches had kept, and not read anew, 1000 gave 0.914, 0.606, +10.2% (by
rows): the answers sank. To solve for the whole update of all batches anew, half of the old one let go in each pass, loses the
answers: the first pass lowered their log-odds by 6.4 nats, while all of the old update is worth 1.1 by the gradients.

Source: Amari 1998, "Natural Gradient Works Efficiently in Learning", Neural Computation 10(2); Martens and Grosse 2015,
arXiv:1503.05671, section 3, for the two factors; Gu et al. 2025, arXiv:2505.14679 (UltraEdit), for facts from a few passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from editors.beginnings import with_beginnings
from editors.cheap_module import CheapModule, whitened
from editors.contract import EditBatch, Estimate, Location, Progress, silent
from editors.corpus import default_corpus
from editors.costs import gradient_estimate
from editors.earlier import earlier_keys, remembered
from editors.errors import ConfigError, IntegrityError
from editors.facts import facts_of
from editors.gradients import GradientReader, Reading
from editors.loading import LoadedModel
from editors.moments import Corpus, second_moments
from editors.natural_costs import modules_bytes, statistics_price
from editors.options import check_ranges, config_from
from editors.patch import Patch, applied
from editors.prospect import Prospect
from editors.provenance import provenance_of
from editors.recalled import recalled_facts, remembered_facts, remembers_facts
from editors.replacing import merged, taking_back
from editors.sensitivity import sensitivities
from editors.solver import cholesky_factor
from editors.target_search import RESTING, Search, TargetRow

HELD_KEYS = 100.0
"""Tokens of text that a key of an earlier patch weighs whose facts are not known, because another method wrote it."""


@dataclass(frozen=True)
class NaturalConfig:
    """Options of Natural. `layers` and positions come with the location."""

    passes: int = 8
    """Most forward and backward passes, each followed by the closed form. Range [1, 100]."""
    aim: float = 2.0
    """Log-odds of the answer, in nats, that a step aims at. Range [-10, 9]."""
    enough: float = 1.0
    """A fact with these log-odds is held and raised no further. Range [-10, 9], not above `aim`. At 0 the answer has
    probability one half, so each of its tokens is the first choice."""
    rise: float = 4.0
    """Most nats by which one pass raises a fact. Range (0, 100]. Further away the gradient is another."""
    radius: float = 1.0
    """Longest change of the outputs at a fact's own key in one pass, over all modules, in units of the state's norm. Range
    (0, 100]. It binds where an answer hardly depends on the edited token, and keeps such facts from running away."""
    slack: float = 0.02
    """How much a fact's rise may fall short for the sake of the text, in units of the facts' median Q_ii. Range (0, 1e6]."""
    key_loading: float = 1e-3
    """Identity added to C, in units of its median diagonal: keys that the text happens to lack are not free. Range (0, 1]."""
    output_loading: float = 0.1
    """The same for S. Range (0, 1e6]; the largest is the plain gradient."""
    anew: float = 0.1
    """Share of all facts that the new ones must be at least, for the update of all to be solved anew. Range [0, 1]; at 1 never
    where earlier ones stand."""
    contexts: int = 0
    """Contexts besides the bare prompt. Range [0, 10]. Each costs another row."""
    position: Literal["auto", "subject_last", "question_last", "prompt_last"] = "auto"
    """Which token's key is edited, where the location does not say."""
    token_budget: int = 1024
    """Most tokens of one pass. Range [16, 1048576]. Every token keeps its activations in all layers from the lowest on."""

    def __post_init__(self) -> None:
        check_ranges(self, passes="[1, 100]", aim="[-10, 9]", enough="[-10, 9]", rise="[1e-9, 100]", radius="[1e-9, 100]",
                     slack="[1e-9, 1e6]", anew="[0, 1]", key_loading="[1e-9, 1]", output_loading="[1e-9, 1e6]",
                     contexts="[0, 10]", token_budget="[16, 1048576]")
        if self.enough > self.aim:
            raise ConfigError(f"enough must not be above aim, got {self.enough!r} and {self.aim!r}", "lower enough")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> NaturalConfig:
        """The config for a sheet's options.

        Raises:
            ConfigError: an option is unknown or outside its range.
        """
        return config_from(cls, options, "natural")


def wanted_rises(log_odds: Tensor, config: NaturalConfig) -> Tensor:
    """(N,) float64: by how many nats each fact's log-odds are to rise in one pass; 0 for those with enough."""
    rises = (config.aim - log_odds.double()).clamp(min=0, max=config.rise)
    return torch.where(log_odds >= config.enough, 0.0, rises)


def within_radius(rises: Tensor, kernel: Tensor, lengths: Tensor, limits: Tensor) -> Tensor:
    """Rises (N,) no greater than a fact alone reaches inside its radius, to first order.

    Args:
        rises: (N,) wanted.
        kernel: (N,) float64, Q_ii.
        lengths: (N,) how long the change at the fact's own key is for a weight a_i of one.
        limits: (N,) how long it may be.
    """
    return torch.minimum(rises, limits * kernel / lengths.clamp(min=torch.finfo(lengths.dtype).tiny))


def weights_of(kernel: Tensor, rises: Tensor, slack: float) -> Tensor:
    """The a in U: (Q + slack * median Q_ii * I)^-1 d. kernel: (M, M) float64; rises: (M,); (M,).

    Raises:
        IntegrityError: the kernel is not finite, or zero.
    """
    diagonal = kernel.diagonal()
    felt = diagonal[diagonal > 0]
    if not bool(torch.isfinite(kernel).all()) or not len(felt):
        raise IntegrityError("the facts' gradients are not finite, or zero", "choose lower layers, or another position")
    system = kernel + slack * felt.median() * torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
    return torch.cholesky_solve(rises[:, None], torch.linalg.cholesky(system))[:, 0]


def loaded_factor(moment: Tensor, loading: float) -> Tensor:
    """Lower Cholesky factor, float64, of moment + loading * median(diagonal) * I.

    The median: where attention rests one coordinate of the keys can be ten thousand times the others.
    """
    loaded = moment.double()
    loaded.diagonal().add_(loading * loaded.diagonal().median())
    return cholesky_factor(loaded)


class Natural:
    """The editor. Constructed with its frozen config; `plan` leaves the model bit-identical."""

    name: ClassVar[str] = "natural"
    purposes: ClassVar[tuple[str, ...]] = ("update",)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Natural:
        """The editor for a sheet's options; raises ConfigError for an unknown one or one outside its range."""
        return cls(NaturalConfig.from_options(options))

    def __init__(self, config: NaturalConfig | None = None, corpus: Corpus | None = None) -> None:
        self.config = config or NaturalConfig()
        self.corpus = corpus

    def estimate(self, ahead: Prospect) -> Estimate:
        """Bytes, FLOPs and seconds as if every pass went over all facts that are solved for, and one over those read."""
        chosen, new = self.config, len(ahead.batch.updates)
        passes = chosen.passes if self._solves_anew(new, new + ahead.earlier_facts) else 1
        found = gradient_estimate(ahead, chosen.position, chosen.contexts, chosen.passes, chosen.token_budget,
                                  1 + ahead.earlier_facts * passes / (new * chosen.passes), statistics_price(ahead))
        held = round(modules_bytes(ahead, new + ahead.earlier_facts))
        return found.model_copy(update={"memory_bytes": found.memory_bytes + held})

    def plan(self, model: LoadedModel, batch: EditBatch, location: Location, statistics: Path,
             progress: Progress = silent, earlier: Sequence[Patch] = ()) -> Patch:
        """The patch that carries out the batch; `earlier` are the patches that the model carries.

        Raises:
            ArchitectureError: the family normalises its FFN output.
            SheetError: a position is not in its prompt.
            IntegrityError: the passes met numbers that are not finite, or damaged statistics.
        """
        model.anatomy.require_plain_output(self.name)
        layers = sorted(location.layers)
        corpus = self.corpus or with_beginnings(default_corpus(model, batch.base_digest, statistics, progress), model.tokenizer)
        moments = second_moments(model, layers, corpus, statistics, progress, batch.base_digest)
        felt = sensitivities(model, layers, corpus, statistics, progress, batch.base_digest)
        facts = facts_of(model, batch, location, self.config.position, self.config.contexts)
        new = tuple(row for row in facts.targets if row.labels)
        rows = (*new, *(replace(row, row=replace(row.row, owner=facts.count + row.row.owner))
                        for row in recalled_facts(earlier, new)))
        count = 1 + max(row.row.owner for row in rows)
        replaced = [patch for patch in earlier if remembers_facts(patch)] if self._solves_anew(facts.count, count) else []
        back = taking_back(replaced)
        with applied(model.model, back):
            first = _felt(self._read(model, rows, layers))
            modules = self._modules(model, first, moments, felt, earlier)
            found = self._stepped(model, rows, first, modules, count if replaced else facts.count, progress)
        edits = merged((*(module.edit(model) for module in modules), *back.edits))
        said = Search(found.change, found.loss[:facts.count], found.steps[:facts.count])
        memory = remembered({module.parameter: module.written(facts.count) for module in modules}) | remembered_facts(new)
        return Patch(edits, provenance_of(self.name, self.config, model, batch, location, edits, corpus, said), memory)

    def _solves_anew(self, new: int, count: int) -> bool:
        """Whether so many new facts of all are solved together with the earlier ones."""
        return new >= self.config.anew * count

    def _read(self, model: LoadedModel, rows: Sequence[TargetRow], layers: Sequence[int]) -> Reading:
        return GradientReader(model, rows, layers, self.config.token_budget).read()

    def _modules(self, model: LoadedModel, first: Reading, moments: Mapping[int, Tensor], felt: Mapping[int, Tensor],
                 earlier: Sequence[Patch]) -> list[CheapModule]:
        others = [patch for patch in earlier if not remembers_facts(patch)]
        modules = []
        for layer, keys in first.keys.items():
            parameter, moment = model.anatomy.mlp_output_parameter(layer), moments[layer].to(model.device).double()
            if (kept := earlier_keys(others, parameter, keys)) is not None:
                moment = moment.addmm(kept, kept.T, alpha=1 / HELD_KEYS)
            key_factor = loaded_factor(moment, self.config.key_loading)
            output_factor = loaded_factor(felt[layer].to(model.device), self.config.output_loading)
            modules.append(CheapModule(layer, parameter, key_factor, output_factor, whitened(key_factor, keys),
                                   whitened(output_factor, first.gradients[layer]),
                                   moment.new_zeros(len(output_factor), len(moment))))
        return modules

    def _stepped(self, model: LoadedModel, rows: Sequence[TargetRow], reading: Reading, modules: Sequence[CheapModule],
                 new: int, progress: Progress) -> Search:
        """Take the steps into the modules; what to say of all facts. new: how many, the first ones, are the batch's own."""
        log_odds, loss, limits = reading.log_odds.clone(), reading.loss.clone(), self.config.radius * reading.scale.double()
        which = torch.arange(len(loss), device=loss.device)
        steps, kernel = torch.zeros_like(which), limits.new_zeros(len(loss), len(loss))
        for number in range(self.config.passes):
            if number:
                with applied(model.model, Patch(tuple(module.edit(model) for module in modules))):
                    reading = self._read(model, _of(rows, which), list(reading.keys))
                log_odds[which], loss[which] = reading.log_odds, reading.loss
                for module in modules:
                    module.take(reading, which)
            if not bool(torch.isfinite(log_odds).all()):
                raise IntegrityError("the passes diverged: a log-odds is not finite", "lower natural's rise")
            part = torch.stack([module.kernel(which) for module in modules]).sum(dim=0)
            kernel[which], kernel[:, which] = part, part.T
            rises = torch.where(kernel.diagonal() > 0, wanted_rises(log_odds, self.config), 0.0)
            progress("passes", int((rises == 0).sum()), len(rises))
            if number and not bool(rises.any()):
                break
            steps += rises > 0
            self._step(modules, kernel, rises, which, limits)
            which = ((rises > 0) | (torch.arange(len(rises), device=rises.device) < new)).nonzero()[:, 0]
        norm = torch.stack([module.change.square().sum() for module in modules]).sum().sqrt()
        return Search(norm.float().expand(1, 1), loss, steps)

    def _step(self, modules: Sequence[CheapModule], kernel: Tensor, rises: Tensor, which: Tensor, limits: Tensor) -> None:
        lengths = torch.stack([module.lengths(which) for module in modules]).norm(dim=0)
        rises[which] = within_radius(rises[which], kernel.diagonal()[which], lengths, limits[which])
        weights = weights_of(kernel, rises, self.config.slack)
        for module in modules:
            module.add(weights)


def _felt(reading: Reading) -> Reading:
    """The reading without the gradients of facts at a token where attention rests: nothing is written there."""
    is_resting = reading.scale > RESTING * reading.scale.median()
    for gradients in reading.gradients.values():
        gradients[:, is_resting] = 0.0
    return reading


def _of(rows: Sequence[TargetRow], which: Tensor) -> list[TargetRow]:
    """The rows of these facts, whose owners count from 0."""
    places = {owner: place for place, owner in enumerate(which.tolist())}
    return [replace(row, row=replace(row.row, owner=places[row.row.owner])) for row in rows if row.row.owner in places]
