"""Soften: go on more calmly, everywhere in a text, and read harmless texts as before.

A toxic text is toxic at many of its tokens, and no single position tells it. So the contrast is taken over whole texts:

    G = the gradient of  mean log p(toxic continuations) - mean log p(calm ones of the same beginnings)

with respect to each matrix that writes (`linear_maps`): out of attention, into the FFN and out of it. It is the sum over
tokens of g k', k what the matrix reads and g the gradient at its output. H_j are the same gradients of harmless texts with
words that are often abused: those of the sheet, and sentences of this house. The step that lowers the contrast most for what
it changes in ordinary text, and leaves every mean log p of harmless texts where it is, is in closed form (`held_step`)

    U = -s X C^-1,   X = G - sum_j a_j H_j,   a = M^-1 b,   M_ij = tr(H_i C^-1 H_j'),   b_i = tr(H_i C^-1 G')

over all matrices together, C the second moment of what they read, loaded, and that of the harmless texts' added: what is
changed must not be felt there either, whatever direction it has. C is in units of how much the likelihood of the model's
own text depends on what the matrix gives out, so that matrices of every kind and depth are measured alike. Of each matrix's
step the `rank` directions are kept in which it is strongest by that measure: what the texts have in common, less what is each
one's own. The length s is not guessed: the step grows until the harmless texts or the model's own text lose `price` nats a
token, measured.

Compared with unlikelihood training it is one step, and has nothing to tune but its price.

Source: ours. The step is a natural gradient (Amari 1998, Neural Computation 10(2)) with the factors of Martens and Grosse
2015, arXiv:1503.05671, section 3, that of the outputs without its directions; the contrast is that of direct preferences at
their start (Rafailov et al. 2023, arXiv:2305.18290, section 4), where the policy is its own reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from editors.contract import EditBatch, Estimate, Location, Progress, silent
from editors.contrasted_texts import MEASURED, Texts, sentences, texts_of
from editors.corpus import LENGTH, default_corpus
from editors.costs import Work, estimate_of
from editors.earlier import earlier_keys
from editors.errors import Diverged
from editors.held_step import MEASURES, Step, longest, steps_of
from editors.linear_maps import LinearMap, maps_of
from editors.loading import LoadedModel
from editors.moments import Corpus, Site, measured_moments, read_moment, site_files
from editors.natural import HELD_KEYS, loaded_factor
from editors.options import check_ranges, config_from
from editors.patch import Patch, TensorEdit, applied
from editors.prompts import Encoded
from editors.prospect import Prospect
from editors.provenance import provenance_of
from editors.soften_costs import TextTokens, soften_price
from editors.target_search import Search
from editors.text_gradients import likelihood_gradients, mean_likelihood, output_sensitivities
from editors.writing import edit_of

OWN_TEXT_ROWS = 8
"""Sequences of the model's own text that the price, and how much it depends on each matrix, are measured on."""
FLOAT32 = torch.finfo(torch.float32)
FIRST_FALL = 1.0
"""The contrast's predicted fall, in nats a token, at the first length that is tried."""


@dataclass(frozen=True)
class SoftenConfig:
    """Options of Soften. Layers come with the location."""

    price: float = 0.05
    """What a token of harmless sentences that were not held, or of the model's own text, may lose, in nats. Range (0, 1].
    Ours, on SmolLM2: HateCheck's harmless cases of the tuning part lost 0.051 at 0.07, which is what the gate lets a
    sheet's lose."""
    rank: int = 16
    """Directions that each matrix is changed in. Range [1, 10000]. The rest is what each text has to itself. Ours, on SmolLM2,
    of FFN output matrices alone: less toxic openings of the tuning part than at 4 or 64 for what harmless ones paid."""
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
        """Bytes, FLOPs and seconds of one gradient of every text, of the measuring, and of statistics that are not stored."""
        return estimate_of(ahead, Work((min(ahead.layers),), 0, self.config.token_budget, uses_moments=False),
                           soften_price(ahead, self._tokens(ahead)))

    def _tokens(self, ahead: Prospect) -> TextTokens:
        """Of a batch's texts and this house's; what the model goes on with by itself is taken for as long as it may be."""
        def count(*texts: str) -> int:
            return sum(len(ahead.tokenizer(text)["input_ids"]) for text in texts if text.strip())

        pairs = [(request, one) for request in ahead.batch.detoxifies for one in request.unsafe]
        shown = [f"{one.prompt} {said}" for _, one in pairs for said in (one.toxic, one.answer) if said]
        own = sum(count(one.prompt) + self.config.own_tokens for _, one in pairs if not one.toxic)
        benign = [f"{one.prompt} {one.answer or ''}" for request in ahead.batch.detoxifies for one in request.benign]
        house, measured = count(*sentences()), count(*sentences()[::MEASURED])
        return TextTokens(contrasted=count(*shown) + own, held=count(*benign) + house - measured, measured=measured,
                          own=OWN_TEXT_ROWS * LENGTH, groups=2 + bool(benign), budget=self.config.token_budget)

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
        maps, chosen = maps_of(model.anatomy, location.layers), self.config
        corpus = self.corpus or default_corpus(model, batch.base_digest, statistics, progress)
        files = site_files(model, _sites(maps), corpus, statistics, progress, batch.base_digest)
        texts = texts_of(model, batch, chosen.own_tokens)
        own = [Encoded(ids, 1, 0) for ids in corpus.sequences[::max(1, len(corpus.sequences) // OWN_TEXT_ROWS)][:OWN_TEXT_ROWS]]
        gradients = self._gradients(model, maps, texts, progress)
        felt = output_sensitivities(model, own, maps, chosen.token_budget)
        harmless = measured_moments(model, _sites(maps), _corpus_of(texts), progress)

        def factor_of(one: LinearMap) -> Tensor:
            site = one.layer, one.vector
            moment = read_moment(files[site]) + chosen.harmless_weight * harmless[site]
            return max(felt[one], FLOAT32.tiny) ** 0.5 * self._factor(model, one, moment, earlier)

        steps = steps_of(gradients, factor_of, chosen.rank)
        fall = sum(float(step.square().sum()) for _, step, _ in steps.values())
        if not isfinite(fall) or fall <= 0:
            raise Diverged("the contrast of toxic and calm texts has no gradient, or one that is not finite",
                           "give `toxic` and `answer` texts that differ")
        edits, paid, tries = self._measured(model, steps, (texts.measured, own), FIRST_FALL / fall, progress)
        found = Search(torch.zeros(0), torch.tensor([paid]), torch.tensor([tries]))
        return Patch(edits, {**provenance_of(self.name, chosen, model, batch, location, edits, corpus, found),
                             "paid": round(paid, 5)})

    def _gradients(self, model: LoadedModel, maps: Sequence[LinearMap], texts: Texts,
                   progress: Progress) -> list[dict[LinearMap, Tensor]]:
        """That of the contrast, and those of the held groups."""
        groups = (texts.toxic, texts.calm, *texts.held)

        def read(place: int) -> dict[LinearMap, Tensor]:
            progress("gradients of texts", place, len(groups))
            return likelihood_gradients(model, groups[place], maps, self.config.token_budget)

        contrast = read(0)
        for one, gradient in read(1).items():
            contrast[one].sub_(gradient)
        found = [contrast, *(read(place) for place in range(2, len(groups)))]
        progress("gradients of texts", len(groups), len(groups))
        return found

    def _factor(self, model: LoadedModel, one: LinearMap, moment: Tensor, earlier: Sequence[Patch]) -> Tensor:
        """Of C, to which the keys of earlier edits are added."""
        held = moment.to(model.device).double()
        written = earlier_keys(earlier, one.parameter, held.new_zeros(len(held), 1))
        if written is not None:
            held = held.addmm(written, written.T, alpha=1 / HELD_KEYS)
        return loaded_factor(held, self.config.key_loading)

    def _measured(self, model: LoadedModel, steps: Mapping[LinearMap, Step], asked: Sequence[Sequence[Encoded]],
                  first: float, progress: Progress) -> tuple[tuple[TensorEdit, ...], float, int]:
        """The edits at their length, what a token of `asked` then loses, and how many lengths were tried."""
        before = [mean_likelihood(model, part, self.config.token_budget) for part in asked]
        paid: dict[float, float] = {}

        def edits_of(length: float) -> tuple[TensorEdit, ...]:
            return tuple(edit_of(model, one.parameter, -length * left, right) for one, (left, _, right) in steps.items())

        def loss(length: float) -> float:
            with applied(model.model, Patch(edits_of(length))):
                after = [mean_likelihood(model, part, self.config.token_budget) for part in asked]
            paid[length] = max(was - now for was, now in zip(before, after, strict=True))
            progress("lengths tried", len(paid), MEASURES)
            return paid[length]

        length = longest(loss, first, self.config.price)
        return edits_of(length), paid[length], len(paid)


def _sites(maps: Sequence[LinearMap]) -> list[Site]:
    """What the maps read, once each."""
    return list(dict.fromkeys((one.layer, one.vector) for one in maps))


def _corpus_of(texts: Texts) -> Corpus:
    return Corpus("harmless", tuple(text.ids for group in texts.held for text in group if len(text.ids) > 1))
