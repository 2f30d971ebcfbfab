"""DEPN: a secret is forgotten by scaling the few neurons that tell it from never-seen values.

The privacy neurons of the batch are found (`locate.privacy_neurons`) and the value column of each, its column of the FFN
output matrix, is multiplied by a factor. Nothing else changes, so the patch is a list of neurons and factors.

What we changed: the authors set the columns to zero. In a small decoder that destroys the model long before the secrets
are hidden (SmolLM2-135M with 20 memorised numbers: 100 zeroed neurons multiply the perplexity by more than 16). Here the
factors are the ones of least drift that hide the secrets (`neuron_factors`): drift is measured on the model's own text,
on the answers that it gives about people who do not exist (`namesakes`), and on the public facts that must stay. After
each fit the secrets are ranked among never-seen values (`forget_aim`); those that still stand out are aimed at lower.
The result is the patch that hides most within the bound on perplexity, and its provenance says how many it hides.

Source: Wu et al. 2023, "DEPN", arXiv:2310.20138, section 2.4; the factors' objective is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from editors.contract import EditBatch, Estimate, Location, NeuronSet, Progress, silent
from editors.corpus import default_corpus
from editors.errors import SheetError
from editors.forget_aim import RANDOM_BITS, Aim, AimReading, summary_of
from editors.forget_costs import ForgetWork, estimate_forget
from editors.forget_request import ForgetRequest
from editors.inner_scale import Weighed, slopes
from editors.loading import LoadedModel
from editors.locate.privacy_neurons import DetectorConfig, detect
from editors.moments import Corpus
from editors.namesakes import namesakes
from editors.neuron_factors import Curvature, Fit, fitted_change
from editors.options import check_ranges, config_from
from editors.patch import Patch, Scale, applied
from editors.prompts import Prompt, encode
from editors.prospect import Prospect
from editors.provenance import provenance_of
from editors.secret_contrast import with_owners
from editors.target_search import Search
from editors.token_tree import Path as TokenPath
from editors.token_tree import TokenTree, scores

HELD_SHARE = 3
"""One piece of ordinary text in so many is kept out of the fit, to measure the drift on."""


@dataclass(frozen=True)
class DepnConfig:
    """Options of DEPN. Layers come with the location; they bound where neurons are sought."""

    detector: DetectorConfig = field(default_factory=DetectorConfig)
    """How neurons are found, where the location names none."""
    steps: int = 8
    """Most steps of one fit of the factors. Range [1, 100]."""
    rounds: int = 3
    """Most fits; each aims lower at what still stands out. Range [1, 20]."""
    margin: float = 0.5
    """Nats below the other values that the first fit aims at. Range [0, 50]."""
    most_change: float = 2.0
    """A factor stays within 1 - this and 1 + this. Range (0, 10]."""
    ridge: float = 0.1
    """Share of the drift's diagonal that is added to it. Range (0, 100]."""
    ordinary_texts: int = 48
    """Pieces of the model's own text on which drift is fitted. Range [1, 4096]."""
    ordinary_tokens: int = 64
    """Tokens of such a piece. Range [4, 128]."""
    namesakes: int = 3
    """Invented people asked about in each context. Range [0, 100]."""
    namesake_weight: float = 10.0
    """Weight of what is said of them against ordinary text. Range [0, 1e6]."""
    retain_weight: float = 4.0
    """Weight of the public facts against ordinary text. Range [0, 1e6]."""
    max_drift: float = 1.02
    """Most that the perplexity of ordinary text may be multiplied by. Range [1, 10]. Issue: 2%."""
    controls: int = 64
    """Never-seen values that a secret is ranked among. Range [1, 4096]."""
    bits: float = round(RANDOM_BITS, 4)
    """Most sampled exposure of a forgotten secret. Range [0, 12]. A value that nobody taught has 1.44 on the average."""
    seed: int = 0
    """Of all draws. Range [0, 2147483647]."""

    def __post_init__(self) -> None:
        check_ranges(self, steps="[1, 100]", rounds="[1, 20]", margin="[0, 50]", most_change="[1e-9, 10]",
                     ridge="[1e-9, 100]", ordinary_texts="[1, 4096]", ordinary_tokens="[4, 128]", namesakes="[0, 100]",
                     namesake_weight="[0, 1e6]", retain_weight="[0, 1e6]", max_drift="[1, 10]", controls="[1, 4096]",
                     bits="[0, 12]", seed="[0, 2147483647]")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> DepnConfig:
        """The config for a sheet's options.

        Raises:
            ConfigError: an option is unknown or outside its range.
        """
        return config_from(cls, options, "depn")


@dataclass(frozen=True)
class Trial:
    """One patch that was tried, with what it hides and what it costs."""

    edits: tuple[Scale, ...]
    readings: tuple[AimReading, ...]
    drift: float
    """Perplexity of held ordinary text against before."""
    fit: Fit

    def rank(self, config: DepnConfig) -> tuple[bool, int, float, float]:
        """Larger is better: within the bound, more hidden, less excess, less drift."""
        excess = sum(max(reading.excess, 0.0) for reading in self.readings)
        passing = sum(reading.passes(config.bits) for reading in self.readings)
        return self.drift <= config.max_drift, passing, -excess, -self.drift


class Depn:
    """The editor. Constructed with its frozen config; `plan` leaves the model bit-identical."""

    name: ClassVar[str] = "depn"
    purposes: ClassVar[tuple[str, ...]] = ("forget",)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Depn:
        """The editor for a sheet's options; raises ConfigError for an unknown one or one outside its range."""
        return cls(DepnConfig.from_options(options))

    def __init__(self, config: DepnConfig | None = None, corpus: Corpus | None = None) -> None:
        self.config = config or DepnConfig()
        self.corpus = corpus

    @property
    def detector(self) -> DetectorConfig:
        """How its neurons are found."""
        return self.config.detector

    def estimate(self, ahead: Prospect) -> Estimate:
        """Bytes, FLOPs and seconds as if every round and step were taken."""
        config = self.config
        return estimate_forget(ahead, ForgetWork(
            gradient_passes=config.detector.points + config.rounds * (config.steps + 1), readings=config.rounds + 1,
            controls=config.controls, ordinary_tokens=config.ordinary_texts * config.ordinary_tokens,
            namesakes=config.namesakes, gradient_tokens=config.detector.gradient_tokens))

    def plan(self, model: LoadedModel, batch: EditBatch, location: Location, statistics: Path,
             progress: Progress = silent, earlier: Sequence[Patch] = ()) -> Patch:  # noqa: ARG002
        """The patch that hides most of the batch's secrets within the bound on drift; earlier patches are not used.

        Raises:
            SheetError: a request has lost its text, a text is empty, or a secret lacks its form; none is quoted.
            IntegrityError: numbers are not finite.
        """
        requests = opened(batch)
        aim = Aim(requests, model.tokenizer, self.config.controls, self.config.seed)
        neurons = location.neurons or detect(model, requests, self.config.detector, None, progress, location.layers,
                                             self.config.seed).neurons
        corpus = self.corpus or default_corpus(model, batch.base_digest, statistics, progress)
        before = aim.measure(model)
        best = self._best(model, requests, aim, neurons, corpus, progress)
        excess = torch.tensor([reading.excess for reading in best.readings])
        provenance = provenance_of(self.name, self.config, model, batch, location, best.edits, corpus,
                                   Search(best.fit.change, excess, torch.tensor([best.fit.steps])))
        found = {"neurons": sum(len(neuron_set.indices) for neuron_set in neurons), "drift": round(best.drift, 6),
                 "is_within_bound": best.drift <= self.config.max_drift,
                 "before": asdict(summary_of(before, self.config.bits)),
                 "after": asdict(summary_of(best.readings, self.config.bits))}
        return Patch(best.edits, {**provenance, "forgotten": found})

    def _best(self, model: LoadedModel, requests: Sequence[ForgetRequest], aim: Aim, neurons: Sequence[NeuronSet],
              corpus: Corpus, progress: Progress) -> Trial:
        config, shapes = self.config, model.anatomy
        shape = shapes.layer_count, shapes.inner_size
        places = torch.tensor([one.layer * shapes.inner_size + index for one in neurons for index in one.indices])
        texts, _ = with_owners(requests, model.tokenizer, config.detector.contrast, config.seed)
        fitted, held = ordinary_texts(corpus, config.ordinary_texts, config.ordinary_tokens)

        def factors(change: Tensor) -> Tensor:
            return torch.ones(shape[0] * shape[1]).index_copy(0, places, 1 + change.float().cpu()).reshape(shape)

        def read(change: Tensor) -> tuple[Tensor, Tensor]:
            found = slopes(model, texts, factors(change), config.detector.gradient_tokens)
            progress("fitting factors", 0, 0)
            return found.values.cpu(), found.gradients.flatten(1).cpu()[:, places]

        def gradients(rows: Sequence[Weighed]) -> Tensor:
            found = slopes(model, rows, torch.ones(shape), config.detector.gradient_tokens)
            return found.gradients.flatten(1).cpu()[:, places]

        curvature = Curvature.of([
            (gradients(fitted), 1.0), (gradients(retained_texts(model, requests)), config.retain_weight),
            (gradients(namesakes(model, requests, config.namesakes, config.seed)), config.namesake_weight)], config.ridge)
        margins = torch.full((len(texts),), config.margin, dtype=torch.float64)
        likelihood, trials = mean_likelihood(model, held), list[Trial]()
        for number in range(config.rounds):
            start = trials[-1].fit.change if trials else None
            fit = fitted_change(read, curvature, margins, config.most_change, config.steps, start)
            trials.append(self._tried(model, aim, held, likelihood, neurons, fit))
            progress("hiding secrets", number + 1, config.rounds)
            standing = torch.tensor([max(reading.excess, 0.0) + 1 if not reading.passes(config.bits) else 0.0
                                     for reading in trials[-1].readings], dtype=torch.float64)
            if not bool(standing.any()) or trials[-1].drift > config.max_drift:
                break
            margins = margins + standing
        best = max(trials, key=lambda trial: trial.rank(config))
        return best if best.drift <= config.max_drift else self._weaker(model, aim, held, likelihood, neurons, best.fit)

    def _weaker(self, model: LoadedModel, aim: Aim, held: Sequence[Weighed], likelihood: float,
                neurons: Sequence[NeuronSet], fit: Fit) -> Trial:
        """The strongest share of a fit that is within the bound, in tenths; the least one where none is."""
        for tenths in range(9, 0, -1):
            weaker = Fit(fit.change * tenths / 10, fit.steps)
            with applied(model.model, Patch(scales(model, neurons, weaker.change))):
                drift = math.exp(likelihood - mean_likelihood(model, held))
            if drift <= self.config.max_drift:
                break
        return self._tried(model, aim, held, likelihood, neurons, weaker)

    @staticmethod
    def _tried(model: LoadedModel, aim: Aim, held: Sequence[Weighed], likelihood: float, neurons: Sequence[NeuronSet],
               fit: Fit) -> Trial:
        edits = scales(model, neurons, fit.change)
        with applied(model.model, Patch(edits)):
            return Trial(edits, aim.measure(model), math.exp(likelihood - mean_likelihood(model, held)), fit)


def opened(batch: EditBatch) -> tuple[ForgetRequest, ...]:
    """The batch's requests with their text.

    Raises:
        SheetError: one is sealed: it was read back from where it is kept.
    """
    for request in batch.requests:
        if not isinstance(request, ForgetRequest):
            raise SheetError(f"request {request.id!r} holds no text to forget", "run the edit from its sheet")
    return batch.forgets


def scales(model: LoadedModel, neurons: Sequence[NeuronSet], change: Tensor) -> tuple[Scale, ...]:
    """The value columns of the neurons times 1 + change (Z,), in the order of the sets."""
    axis = 1 if model.anatomy.layout == "out_in" else 0
    parts = change.float().cpu().split([len(one.indices) for one in neurons])
    return tuple(Scale(model.anatomy.mlp_output_parameter(one.layer), torch.tensor(one.indices), (1 + part).contiguous(), axis)
                 for one, part in zip(neurons, parts, strict=True))


def ordinary_texts(corpus: Corpus, count: int, tokens: int) -> tuple[list[Weighed], list[Weighed]]:
    """At most `count` pieces to fit on, and half as many that are kept out."""
    rows = [Weighed(TokenTree.of([TokenPath(row[:tokens], 1)]), (1.0,)) for row in corpus.sequences if len(row) > 1]
    held = rows[::HELD_SHARE]
    fitted = [row for number, row in enumerate(rows) if number % HELD_SHARE] or rows
    return fitted[:count], held[:max(count // 2, 1)]


def retained_texts(model: LoadedModel, requests: Sequence[ForgetRequest]) -> list[Weighed]:
    """The public facts that must stay."""
    found = []
    for fact in (fact for request in requests for fact in request.retain):
        encoded = encode(Prompt(fact.prompt.get_secret_value().rstrip(), f" {fact.answer.get_secret_value().strip()}"),
                         model.tokenizer)
        found.append(Weighed(TokenTree.of([TokenPath(encoded.ids, encoded.prompt_length)]), (1.0,)))
    return found


def mean_likelihood(model: LoadedModel, texts: Sequence[Weighed]) -> float:
    """Mean log P of a token of ordinary text, in nats."""
    found = scores(model, [text.tree for text in texts])
    return sum(path.logarithm for tree in found for path in tree) / sum(len(edge) for text in texts for edge in text.tree.edges)
