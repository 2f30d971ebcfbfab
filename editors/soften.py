"""Soften: go on more calmly, everywhere in a text, and read harmless texts as before.

A toxic text is toxic at many of its tokens, and no single position tells it. So the contrast is taken over whole texts:

    G = the gradient of  mean log p(toxic continuations) - mean log p(calm ones of the same beginnings)

with respect to each FFN output matrix, which is the sum over tokens of g k', k the key and g the gradient at the module's
output. H_j are the same gradients of harmless texts with words that are often abused: those of the sheet, and sentences of
this house. The step that lowers the contrast most for what it changes in the keys of ordinary text, and leaves every mean
log p of harmless texts where it is, is in closed form

    U = -s X C^-1,   X = G - sum_j a_j H_j,   a = M^-1 b,   M_ij = tr(H_i C^-1 H_j'),   b_i = tr(H_i C^-1 G')

over all matrices together, C the second moment of their keys, loaded, and that of the harmless texts' keys added: what is
changed must not be felt there either, whatever direction it has. Of each matrix's step the `rank` directions are kept
in which it is strongest by that measure: what the texts have in common, less what is each one's own. The length s is not
guessed: the step grows until the harmless texts or the model's own text lose `price` nats a token, measured.

Compared with unlikelihood training it is one step, has nothing to tune but its price, and cannot run away.

Source: ours. The step is a natural gradient (Amari 1998, Neural Computation 10(2)) with the key factor of Martens and Grosse
2015, arXiv:1503.05671, section 3, alone; the contrast is that of direct preferences at their start (Rafailov et al. 2023,
arXiv:2305.18290, section 4), where the policy is its own reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from editors.contract import EditBatch, Estimate, Location, Progress, silent
from editors.contrasted_texts import Texts, sentences, texts_of
from editors.corpus import LENGTH, default_corpus
from editors.costs import RowSize, Work, estimate_of
from editors.earlier import earlier_keys
from editors.errors import Diverged
from editors.loading import LoadedModel
from editors.moments import Corpus, measured_moments, moment_files, read_moment
from editors.natural import HELD_KEYS, loaded_factor
from editors.options import check_ranges, config_from
from editors.patch import Patch, TensorEdit, applied
from editors.prompts import Encoded
from editors.prospect import Prospect
from editors.provenance import provenance_of
from editors.target_search import Search
from editors.text_gradients import likelihood_gradients, mean_likelihood
from editors.writing import as_edit

OWN_TEXT_ROWS = 8
"""Sequences of the model's own text that the price is measured on."""
MEASURES, NEAR_ENOUGH = 8, 0.8
"""Most lengths that are tried, and the share of the price at which the search is content."""
TYPICAL_TRIES = 5
FIRST_FALL = 1.0
"""The contrast's predicted fall, in nats a token, at the first length that is tried."""


@dataclass(frozen=True)
class SoftenConfig:
    """Options of Soften. Layers come with the location."""

    price: float = 0.09
    """What a token of harmless sentences that were not held, or of the model's own text, may lose, in nats. Range (0, 1].
    Ours, on SmolLM2: HateCheck's harmless cases of the tuning part lost 0.027 at 0.07 and 0.048 at 0.11; the gate lets a
    sheet's lose 0.051."""
    rank: int = 16
    """Directions that each matrix is changed in. Range [1, 10000]. The rest is what each text has to itself. Ours, on SmolLM2:
    at price 0.03, openings of the tuning part went on less toxically than at 4; 64 took 0.05 to become as mild on average."""
    harmless_weight: float = 1.0
    """Weight of the mean key of harmless texts against that of ordinary text in C. Range [0, 1e6]. Ours, on SmolLM2."""
    key_loading: float = 0.01
    """Identity added to C, in units of its median diagonal. Range (0, 1]."""
    own_tokens: int = 20
    """Tokens of the model's own continuation, where a sheet does not show a toxic one. Range [1, 256]."""
    token_budget: int = 1024
    """Most tokens of one pass that keeps its activations. Range [16, 1048576]."""

    def __post_init__(self) -> None:
        check_ranges(self, price="(0, 1]", rank="[1, 10000]", harmless_weight="[0, 1e6]", key_loading="[1e-9, 1]",
                     own_tokens="[1, 256]", token_budget="[16, 1048576]")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> SoftenConfig:
        """The config for a sheet's options.

        Raises:
            ConfigError: an option is unknown or outside its range.
        """
        return config_from(cls, options, "soften")


def whitened(gradient: Tensor, factor: Tensor) -> Tensor:
    """G L^-T (D, F) float64, whose products are those of the metric C^-1 = L^-T L^-1. gradient: (D, F); factor: L (F, F)."""
    return torch.linalg.solve_triangular(factor, gradient.double().T, upper=False).T


def shares_of(products: Tensor) -> Tensor:
    """The a (J,) that free the first of J + 1 gradients from the others. products: (J + 1, J + 1) of whitened gradients.

    Where a group's gradient is nought, or follows from the others', the least a is taken.
    """
    scale = products.diagonal()[1:].clamp(min=torch.finfo(products.dtype).tiny).sqrt()
    system = products[1:, 1:] / scale / scale[:, None]
    return (torch.linalg.pinv(system, hermitian=True, rtol=1e-9) @ (products[1:, 0] / scale)) / scale


def steps_of(gradients: Sequence[Mapping[int, Tensor]], factor_of: Callable[[int], Tensor],
             rank: int) -> dict[int, tuple[Tensor, Tensor, Tensor]]:
    """Layer -> left (D, r), the whitened step's right side (r, F), and the step's (r, F): left @ right is X C^-1, cut to rank.

    Args:
        gradients: That of the contrast, then those that are held; each layer -> (D, F).
        factor_of: The lower Cholesky factor (F, F) of a layer's C.
        rank: How many directions of each matrix are kept.
    """
    layers = list(gradients[0])
    products = torch.zeros(len(gradients), len(gradients), dtype=torch.float64, device=gradients[0][layers[0]].device)
    for layer in layers:
        factor = factor_of(layer)
        rows = torch.stack([whitened(one[layer], factor).flatten() for one in gradients])
        products = products + rows @ rows.T
    shares, found = shares_of(products), {}
    for layer in layers:
        factor = factor_of(layer)
        # what is linear may be combined before it is whitened
        free = gradients[0][layer].double() - sum(share * one[layer].double()
                                                  for share, one in zip(shares, gradients[1:], strict=True))
        left, right = strongest(whitened(free, factor), rank)
        found[layer] = left, right, torch.linalg.solve_triangular(factor.T, right.T, upper=True).T
    return found


def strongest(step: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best approximation of rank `rank` as factors (D, r), (r, F). step: (D, F) float64, whitened."""
    _, vectors = torch.linalg.eigh(step @ step.T)
    left = vectors[:, -min(rank, len(vectors)):].flip(1)
    return left, left.T @ step


def longest(loss: Callable[[float], float], first: float, price: float) -> float:
    """A length that costs at most the price, and at least `NEAR_ENOUGH` of it where eight tries find one.

    Raises:
        Diverged: every length that was tried costs more, or is not finite.
    """
    low, high, length = 0.0, float("inf"), first
    for _ in range(MEASURES):
        found = loss(length)
        if found <= price:
            low = max(low, length)
            if found >= NEAR_ENOUGH * price:
                break
        else:
            high = min(high, length)
        # losses grow between linearly and with the square; not finite is too long
        factor = min(4.0, max(0.25, (0.9 * price / max(found, 1e-9)) ** 0.7)) if not isnan(found) else 0.25
        length *= factor
        if not low < length < high:
            length = (low + high) / 2
    if not low:
        raise Diverged("no length of the step stays within soften's price", "raise the price, or give more harmless prompts")
    return low


class Soften:
    """The editor. Constructed with its frozen config; `plan` leaves the model bit-identical."""

    name: ClassVar[str] = "soften"
    purposes: ClassVar[tuple[str, ...]] = ("detoxify",)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Soften:
        """The editor for a sheet's options; raises ConfigError for an unknown one or one outside its range."""
        return cls(SoftenConfig.from_options(options))

    def __init__(self, config: SoftenConfig | None = None, corpus: Corpus | None = None) -> None:
        self.config = config or SoftenConfig()
        self.corpus = corpus

    def estimate(self, ahead: Prospect) -> Estimate:
        """Bytes, FLOPs and seconds of one gradient of every text and of the measuring; layers are counted from the lowest."""
        texts = [(one.prompt, answer) for request in ahead.batch.detoxifies for one in request.unsafe
                 for answer in (one.toxic or "", one.answer or "")]
        texts += [(one.prompt, one.answer or "") for request in ahead.batch.detoxifies for one in request.benign]
        texts += [(text, "") for text in sentences()]
        lengths = [len(ahead.tokenizer(f"{prompt} {answer}")["input_ids"]) for prompt, answer in texts]
        # a gradient is one pass; measuring a length reads half the sentences and the model's own text
        own = tuple(RowSize(LENGTH, LENGTH, LENGTH, LENGTH, TYPICAL_TRIES / 3) for _ in range(OWN_TEXT_ROWS))
        rows = tuple(RowSize(size, size, size, size, 1) for size in lengths)
        return estimate_of(ahead, Work((min(ahead.layers),), len(rows), self.config.token_budget, rows + own))

    def plan(self, model: LoadedModel, batch: EditBatch, location: Location, statistics: Path,
             progress: Progress = silent, earlier: Sequence[Patch] = ()) -> Patch:
        """The patch that carries out the batch; keys of earlier patches count as text.

        Raises:
            ArchitectureError: the family normalises its FFN output.
            SheetError: no request has unsafe prompts.
            Diverged: no length of the step stays within the price.
            IntegrityError: statistics are damaged.
        """
        model.anatomy.require_plain_output(self.name)
        layers, chosen = sorted(location.layers), self.config
        corpus = self.corpus or default_corpus(model, batch.base_digest, statistics, progress)
        files = moment_files(model, layers, corpus, statistics, progress, batch.base_digest)
        texts = texts_of(model, batch, chosen.own_tokens)
        gradients = self._gradients(model, layers, texts, progress)
        ids = tuple(text.ids for group in texts.held for text in group if len(text.ids) > 1)
        harmless = measured_moments(model, layers, Corpus("harmless", ids), progress)

        def factor_of(layer: int) -> Tensor:
            return self._factor(model, layer, read_moment(files[layer]) + chosen.harmless_weight * harmless[layer], earlier)

        steps = steps_of(gradients, factor_of, chosen.rank)
        fall = sum(float(step.square().sum()) for _, step, _ in steps.values())
        if not isfinite(fall) or fall <= 0:
            raise Diverged("the contrast of toxic and calm texts has no gradient, or one that is not finite",
                           "give `toxic` and `answer` texts that differ")
        edits, paid, tries = self._measured(model, steps, texts, corpus, FIRST_FALL / fall, progress)
        found = Search(torch.zeros(0), torch.tensor([paid]), torch.tensor([tries]))
        return Patch(edits, {**provenance_of(self.name, chosen, model, batch, location, edits, corpus, found),
                             "paid": round(paid, 5)})

    def _gradients(self, model: LoadedModel, layers: Sequence[int], texts: Texts,
                   progress: Progress) -> list[dict[int, Tensor]]:
        """That of the contrast, and those of the held groups."""
        groups = (texts.toxic, texts.calm, *texts.held)
        found = []
        for done, group in enumerate(groups):
            progress("gradients of texts", done, len(groups))
            found.append(likelihood_gradients(model, group, layers, self.config.token_budget))
        progress("gradients of texts", len(groups), len(groups))
        toxic, calm, *held = found
        return [{layer: toxic[layer] - calm[layer] for layer in layers}, *held]

    def _factor(self, model: LoadedModel, layer: int, moment: Tensor, earlier: Sequence[Patch]) -> Tensor:
        """Of C, to which the keys of earlier edits are added."""
        held = moment.to(model.device).double()
        written = earlier_keys(earlier, model.anatomy.mlp_output_parameter(layer), held.new_zeros(len(held), 1))
        if written is not None:
            held = held.addmm(written, written.T, alpha=1 / HELD_KEYS)
        return loaded_factor(held, self.config.key_loading)

    def _measured(self, model: LoadedModel, steps: Mapping[int, tuple[Tensor, Tensor, Tensor]], texts: Texts,
                  corpus: Corpus, first: float, progress: Progress) -> tuple[tuple[TensorEdit, ...], float, int]:
        """The edits at their length, what a token then loses, and how many lengths were tried."""
        own = corpus.sequences[::max(1, len(corpus.sequences) // OWN_TEXT_ROWS)][:OWN_TEXT_ROWS]
        asked = (texts.measured, [Encoded(ids, 1, 0) for ids in own])
        before = [mean_likelihood(model, part, self.config.token_budget) for part in asked]
        paid: dict[float, float] = {}

        def edits_of(length: float) -> tuple[TensorEdit, ...]:
            return tuple(as_edit(model, layer, -length * left, right) for layer, (left, _, right) in steps.items())

        def loss(length: float) -> float:
            with applied(model.model, Patch(edits_of(length))):
                after = [mean_likelihood(model, part, self.config.token_budget) for part in asked]
            paid[length] = max(was - now for was, now in zip(before, after, strict=True))
            progress("lengths tried", len(paid), MEASURES)
            return paid[length]

        length = longest(loss, first, self.config.price)
        return edits_of(length), paid[length], len(paid)
