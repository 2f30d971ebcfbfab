"""Privacy neurons: the FFN neurons that raise one secret above never-seen values of its form.

A neuron is attributed by integrated gradients of

    f = sum_i log P(y_i | x, y_<i)  -  mean over other values c of log P(c_i | x, y_<i)

(`secret_contrast`) with respect to a factor on its activation, along the straight path on which the factors of ALL
neurons go together from `baseline` to 1. The attributions of a text then sum up to f(1) - f(baseline): completeness of
the joint path. One forward and one backward give a point of the path for every layer and every token of the secret, of
all texts at once.

What we changed against the paper, and why:
- The function is the logarithm of the joint probability. The paper's probability is a product, whose gradient it takes
  for the sum of its factors' gradients; the sum of logarithms has exactly that property, and an unlikely last digit does
  not silence the others.
- The secret stands against values of its form. log P of a number is raised by neurons that say "digits now"; they raise
  every number alike, cancel in the difference, and are needed elsewhere.
- The paths of single layers (others following) need a run for each layer. The joint path is another integral with the
  same axioms; from a baseline of 0, where no FFN works, most of it lies far from anything the model ever computes, while
  an edit changes few neurons of a working model. So the baseline is a share of the activation.
- A neuron is attributed at every token of the text, not only where the secret is predicted: an edit acts at them all.
- Points are those of Gauss and Legendre: the error of the sum falls geometrically, not as 1/points.

Source: Wu et al. 2023, "DEPN", arXiv:2310.20138, eqs. 3-4 and section 2.3; Sundararajan et al. 2017, arXiv:1703.01365.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from editors.contract import Location, NeuronSet, Progress, silent
from editors.errors import IntegrityError
from editors.forget_request import ForgetRequest
from editors.inner_scale import GRADIENT_TOKENS, Weighed, slopes
from editors.loading import LoadedModel
from editors.locate.neuron_evidence import write_neurons
from editors.options import check_ranges
from editors.secret_contrast import with_owners


@dataclass(frozen=True)
class DetectorConfig:
    """How privacy neurons are found and how many are kept."""

    points: int = 20
    """Points of the path. Range [1, 200]. Authors: 20."""
    baseline: float = 0.0
    """Share of the activations at which the path begins. Range [0, 1). Authors: 0."""
    contrast: int = 9
    """Other values at each free place whose mean is taken off; 0: the secret alone, as the authors do. Range [0, 256]."""
    ratio: float = 0.1
    """A text keeps neurons with this share of its largest attribution. Range (0, 1]. Authors: 0.1."""
    mode: float = 0.5
    """A request keeps neurons that this share of its texts kept. Range (0, 1]. Authors: 0.5."""
    neurons: int = 200
    """Most neurons of the whole batch. Range [1, 1000000]. Authors: 10-500."""
    gradient_tokens: int = GRADIENT_TOKENS
    """Most tokens of one pass that keeps its activations. Range [16, 1048576]."""

    def __post_init__(self) -> None:
        check_ranges(self, points="[1, 200]", baseline="[0, 1)", contrast="[0, 256]", ratio="[1e-9, 1]", mode="[1e-9, 1]",
                     neurons="[1, 1e6]", gradient_tokens="[16, 1048576]")


@runtime_checkable
class ScalesNeurons(Protocol):
    """An editor that changes the neurons found, and says how they are to be found."""

    @property
    def detector(self) -> DetectorConfig:
        """Its detector's options."""


@dataclass(frozen=True)
class Found:
    """Neurons in their order, best first, each a row of three (Z,) tensors: layer, index in the layer, votes and score.

    `scores` are votes plus the mean attribution relative to the largest, which is below 1: their order is that of the choice.
    """

    layers: Tensor
    indices: Tensor
    votes: Tensor
    scores: Tensor
    attributions: Tensor
    """(Z,) mean over all texts, in nats."""


def detect(model: LoadedModel, requests: Sequence[ForgetRequest], config: DetectorConfig | None = None,
           folder: Path | None = None, progress: Progress = silent, layers: Sequence[int] | None = None,
           seed: int = 0) -> Location:
    """The neurons of the batch as a location, with a table and a picture in `folder` where one is given.

    Neither holds text. `layers` are those that neurons are taken from; None: all. The model is unchanged.

    Raises:
        SheetError: a text is empty, or a secret does not have the form given; none is quoted.
        IntegrityError: an attribution is not finite.
    """
    config = config or DetectorConfig()
    texts, owners = with_owners(requests, model.tokenizer, config.contrast, seed)
    scores = attributions(model, texts, config, progress)
    found = elect(scores, torch.tensor(owners), config, layers)
    sets = neuron_sets(found)
    evidence = write_neurons(found, scores.clamp(min=0).mean(0).sum(1), len(requests), folder) if folder else ()
    return Location(layers=tuple(neurons.layer for neurons in sets), positions={}, neurons=sets, source="locator",
                    evidence=evidence)


def attributions(model: LoadedModel, texts: Sequence[Weighed], config: DetectorConfig, progress: Progress = silent) -> Tensor:
    """Integrated gradients (T, L, F) float32 of the texts' functions; each text's sum up to f(1) - f(baseline).

    Raises:
        IntegrityError: one is not finite.
    """
    shape = model.anatomy.layer_count, model.anatomy.inner_size
    places, weights = np.polynomial.legendre.leggauss(config.points)
    width = 1 - config.baseline
    total = torch.zeros(len(texts), *shape, dtype=torch.float64, device=model.device)
    for number, (place, weight) in enumerate(zip(places.tolist(), weights.tolist(), strict=True)):
        factor = config.baseline + width * (place + 1) / 2
        found = slopes(model, texts, torch.full(shape, factor), config.gradient_tokens)
        total += found.gradients * (weight / 2 * width)
        progress("attributing neurons", number + 1, len(places))
    if not bool(torch.isfinite(total).all()):
        raise IntegrityError("an attribution is not finite", "check the model: suture inspect MODEL")
    return total.float()


def elect(scores: Tensor, owners: Tensor, config: DetectorConfig, layers: Sequence[int] | None = None) -> Found:
    """The batch's neurons.

    Args:
        scores: (T, L, F) attribution of each text.
        owners: (T,) which request each text belongs to, counted from 0.
        config: Gives ratio, mode and the number kept.
        layers: Those that neurons are taken from; None: all.
    """
    owners = owners.to(scores.device)
    if layers is not None:
        allowed = torch.zeros(scores.shape[1], 1, device=scores.device)
        allowed[list(layers)] = 1.0
        scores = scores * allowed
    kept = (scores >= config.ratio * scores.amax((1, 2), keepdim=True)) & (scores > 0)
    count = int(owners.max()) + 1
    texts = owners.bincount(minlength=count)
    hits = torch.zeros(count, *scores.shape[1:], device=scores.device).index_add(0, owners, kept.float())
    votes = (hits >= config.mode * texts[:, None, None].clamp(min=1)).sum(0).flatten()
    mean = scores.double().mean(0).flatten()
    rank = votes + mean / (1.001 * mean.abs().max().clamp(min=1e-30))
    order = rank.argsort(descending=True, stable=True)[:config.neurons]
    order = order[votes[order] > 0]
    width = scores.shape[2]
    return Found(order // width, order % width, votes[order], rank[order], mean[order])


def neuron_sets(found: Found) -> tuple[NeuronSet, ...]:
    """The neurons by layer, best first in each."""
    layers = found.layers.tolist()
    return tuple(NeuronSet(layer=layer, indices=tuple(found.indices[at].tolist()),
                           scores=tuple(round(score, 6) for score in found.scores[at].tolist()))
                 for layer in sorted(dict.fromkeys(layers)) for at in [torch.tensor([one == layer for one in layers])])
