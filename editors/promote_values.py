"""Promoting values: FFN neurons whose value vectors promote the words that are wanted, held active everywhere.

The authors pick ten neurons by hand and set their activation to 3 at every token by a hook. Here they are picked by what
their value vectors promote (`locate.value_reading`), and the edit is weights alone.

The static form. That neuron i has the activation c_i at every token means that its own term m_i v_i is taken out of the
output and c_i v_i is put in. Taking out is exact: the column of the output matrix becomes zero. What is put in is a
constant b = sum_i c_i v_i. Where the output matrix has a bias (GPT-2, NeoX, OPT), b is added to it, which is the hook to the
bit of rounding. Llama and its kin have none. There a direction u of key space serves whose product with the keys of
ordinary text is as near to 1 as any: the least E(u'k)^2 + r |u|^2 with E u'k = 1, k the key of a token, C its second moment,

    u = (C + r I)^-1 kbar / (kbar' (C + r I)^-1 kbar),      W += sum_i v_i (c_i u' - e_i'),

of rank n. The ridge r is there because kbar is of some thousand tokens, and in the directions where keys hardly vary it is
noise. The variance of u'k that is left is told in the provenance as `unevenness`; the hook's would be 0.

In a gated FFN activations have both signs and their own scale at each neuron, so 3 means nothing: c_i is `strength` times
the `quantile` of the activation over ordinary text, in the direction that promotes the wish.

What we changed: neurons chosen automatically, by z-scores and not by hand; both signs; c by each neuron's quantile; no hook.

Source: Geva et al. 2022, arXiv:2203.14680, section 5 (suppressing toxic language).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from editors.blocks import Walk, captured_input
from editors.contract import EditBatch, Estimate, Location, Progress, silent
from editors.corpus import default_corpus
from editors.costs import RowSize, Work, estimate_of
from editors.loading import LoadedModel
from editors.locate.value_reading import OWN_TOKENS, Value, best_values, read_values, values_of, wish_of
from editors.moments import Corpus, moment_files, read_moment
from editors.options import check_ranges, config_from
from editors.patch import Dense, LowRank, Patch, TensorEdit
from editors.prospect import Prospect
from editors.provenance import provenance_of
from editors.solver import cholesky_factor
from editors.target_search import Search
from editors.writing import as_edit

READ_TOKENS = 4096
"""Of the corpus, for means and quantiles of activations."""
RIDGE = 0.1
"""The ridge r, in units of the mean diagonal of C."""


@dataclass(frozen=True)
class PromoteValuesConfig:
    """Options of promoting values. The layers whose values are read come with the location."""

    neurons: int = 10
    """How many values are promoted. Range [1, 10000]. Authors: 10."""
    quantile: float = 0.99
    """Of a neuron's activation over ordinary text, in the wished direction. Range (0.5, 1]. Ours."""
    strength: float = 1.0
    """How many times that activation is held. Range (0, 100]. Authors: a fixed activation of 3, which no other model shares."""

    def __post_init__(self) -> None:
        check_ranges(self, neurons="[1, 10000]", quantile="(0.5, 1]", strength="(0, 100]")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> PromoteValuesConfig:
        """The config for a sheet's options.

        Raises:
            ConfigError: an option is unknown or outside its range.
        """
        return config_from(cls, options, "promote_values")


def even_direction(mean_key: Tensor, moment: Tensor, ridge: float = RIDGE) -> Tensor:
    """The direction u (F,) float64 of least mean square over text with u'k = 1 on the average.

    Args:
        mean_key: (F,).
        moment: (F, F) second moment of the keys.
        ridge: r, in units of the moment's mean diagonal.
    """
    loaded = moment.double() + ridge * moment.double().diagonal().mean() * torch.eye(len(moment), device=moment.device)
    solved = torch.cholesky_solve(mean_key.double()[:, None], cholesky_factor(loaded))[:, 0]
    return solved / (mean_key.double() @ solved)


class PromoteValues:
    """The editor. Constructed with its frozen config; `plan` leaves the model bit-identical."""

    name: ClassVar[str] = "promote_values"
    purposes: ClassVar[tuple[str, ...]] = ("detoxify",)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> PromoteValues:
        """The editor for a sheet's options; raises ConfigError for an unknown one or one outside its range."""
        return cls(PromoteValuesConfig.from_options(options))

    def __init__(self, config: PromoteValuesConfig | None = None, corpus: Corpus | None = None) -> None:
        self.config = config or PromoteValuesConfig()
        self.corpus = corpus

    def estimate(self, ahead: Prospect) -> Estimate:
        """Bytes, FLOPs and seconds of the reading, of the text that is run, and of statistics that are not stored."""
        prompts = sum(len(request.unsafe) for request in ahead.batch.detoxifies if not request.concepts)
        own = tuple(RowSize(OWN_TOKENS, OWN_TOKENS, OWN_TOKENS, 1, OWN_TOKENS) for _ in range(prompts))
        text = (RowSize(READ_TOKENS, READ_TOKENS, READ_TOKENS, 1, 1 / 3),)
        return estimate_of(ahead, Work(ahead.layers, max(prompts, 1), 128, own + text))

    def plan(self, model: LoadedModel, batch: EditBatch, location: Location, statistics: Path,
             progress: Progress = silent, earlier: Sequence[Patch] = ()) -> Patch:  # noqa: ARG002
        """The patch that carries out the batch; earlier patches are not used.

        Raises:
            ArchitectureError: the family normalises its FFN output.
            SheetError: the batch has no wish.
            IntegrityError: statistics are damaged.
        """
        model.anatomy.require_plain_output(self.name)
        layers = sorted(location.layers)
        corpus = self.corpus or default_corpus(model, batch.base_digest, statistics, progress)
        scores = read_values(model, layers, wish_of(model, batch, corpus))
        values = best_values(layers, scores, (1, -1) if is_gated(model, layers[0]) else (1,), self.config.neurons)
        chosen = sorted({value.layer for value in values})
        keys = keys_of_text(model, chosen, corpus)
        without_bias = [layer for layer in chosen if _bias_of(model, layer) is None]
        files = moment_files(model, without_bias, corpus, statistics, progress, batch.base_digest)
        edits: list[TensorEdit] = []
        unevenness: dict[str, float] = {}
        for layer in chosen:
            mine = [value for value in values if value.layer == layer]
            activations = held_activations(keys[layer], mine, self.config)
            if layer in without_bias:
                direction = even_direction(keys[layer].mean(0), read_moment(files[layer]).to(model.device))
                unevenness[str(layer)] = round(float((keys[layer].double() @ direction).var()), 4)
                edits.append(without_bias_edit(model, mine, activations, direction))
            else:
                edits += bias_edits(model, mine, activations)
        found = Search(torch.zeros(0), torch.zeros(len(values)), torch.zeros(len(values), dtype=torch.int64))
        told = provenance_of(self.name, self.config, model, batch, location, edits, corpus, found)
        return Patch(tuple(edits), {**told, "unevenness": unevenness,
                                    "values": [[one.layer, one.neuron, one.sign] for one in values]})


def is_gated(model: LoadedModel, layer: int) -> bool:
    """Whether the FFN multiplies two projections, so that its activations take both signs: it has three matrices, or two
    with one of them double.
    """
    part = model.model.get_submodule(model.anatomy.mlp_path(layer))
    numbers = sum(weight.numel() for weight in part.parameters() if weight.ndim == 2)
    return numbers >= 3 * model.anatomy.inner_size * model.anatomy.hidden_size


@torch.no_grad()
def keys_of_text(model: LoadedModel, layers: Sequence[int], corpus: Corpus) -> dict[int, Tensor]:
    """Layer -> activations (T, F) at the tokens of the first `READ_TOKENS` of the text."""
    modules = {layer: model.model.get_submodule(model.anatomy.mlp_output_path(layer)) for layer in layers}
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    left = READ_TOKENS
    for sequence in corpus.sequences:
        if left <= 0:
            break
        walk = Walk(model, input_ids=torch.tensor([sequence], device=model.device), use_cache=False)
        hidden, start = walk.entry, 0
        for layer in sorted(layers):
            with captured_input(modules[layer]) as seen:
                hidden, start = walk.run(hidden, start, layer), layer + 1
            found[layer].append(seen[0].reshape(-1, model.anatomy.inner_size).float())
        left -= len(sequence)
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def held_activations(keys: Tensor, values: Sequence[Value], config: PromoteValuesConfig) -> Tensor:
    """(n,) c_i of values of one layer. keys: (T, F)."""
    signs = torch.tensor([float(value.sign) for value in values], device=keys.device)
    own = keys[:, [value.neuron for value in values]] * signs
    return config.strength * own.quantile(config.quantile, dim=0).clamp(min=0) * signs


def without_bias_edit(model: LoadedModel, values: Sequence[Value], activations: Tensor, direction: Tensor) -> LowRank | Dense:
    """W += sum_i v_i (c_i u' - e_i'). direction: u (F,)."""
    neurons = torch.tensor([value.neuron for value in values], device=direction.device)
    right = activations.double()[:, None] * direction[None]
    right[torch.arange(len(values)), neurons] -= 1
    return as_edit(model, values[0].layer, values_of(model, values[0].layer)[neurons].T.double(), right)


def bias_edits(model: LoadedModel, values: Sequence[Value], activations: Tensor) -> list[TensorEdit]:
    """The neurons' columns become zero, and c_i v_i goes into the bias of the output."""
    layer = values[0].layer
    neurons = torch.tensor([value.neuron for value in values], device=activations.device)
    vectors = values_of(model, layer)[neurons]
    right = torch.zeros(len(values), model.anatomy.inner_size, dtype=torch.float64, device=vectors.device)
    right[torch.arange(len(values)), neurons] = -1
    change = (activations.double() @ vectors.double()).float()
    return [as_edit(model, layer, vectors.T.double(), right), Dense(f"{model.anatomy.mlp_output_path(layer)}.bias", change)]


def _bias_of(model: LoadedModel, layer: int) -> Tensor | None:
    return getattr(model.model.get_submodule(model.anatomy.mlp_output_path(layer)), "bias", None)
