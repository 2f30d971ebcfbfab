"""What the value vector of every FFN neuron promotes, read in vocabulary space: one pass over all of them.

An FFN's output is a sum of value vectors, the columns of its output matrix, each weighed by its neuron's activation. What
a value v adds to the logits is read as head(norm(v)). A wish t (V,) says what is to be promoted: a distribution over words
wanted, less another over words unwanted. A value's score is how far t lifts above all words, in standard deviations of
that value's own logits,

    z(v) = t' (logits - mean) / std,

so that no value wins by its length. As the head is linear, no logits are made: t' head = (t' U), the mean is that of the
rows of U, and the variance is n' Cov(U) n. Where activations take both signs, -v is a value as well, and the better of the
two is taken.

Source: Geva et al. 2022, "Transformer Feed-Forward Layers Build Predictions by Promoting Concepts in the Vocabulary
Space", arXiv:2203.14680, section 3; the norm before the head after nostalgebraist 2020 (logit lens).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from editors.contract import EditBatch, Evidence, NeuronSet
from editors.errors import SheetError
from editors.loading import LoadedModel
from editors.moments import Corpus
from editors.own_answers import own_pairs, safe_pairs

TABLE = "values.csv"
SHOWN_TOKENS = 8
OWN_TOKENS = 16
"""Of the model's own answer to an unsafe prompt, whose words are unwanted."""


@dataclass(frozen=True)
class Value:
    """One value vector: where it stands, which sign of its activation promotes the wish, and how clearly."""

    layer: int
    neuron: int
    sign: int
    score: float


def wish_of(model: LoadedModel, batch: EditBatch, corpus: Corpus) -> Tensor:
    """What is to be promoted: t (V,) float32, summing to 0.

    The concepts against the words of ordinary text, or values that lift whatever is frequent would win; for requests
    without any, safe answers against the model's own.

    Raises:
        SheetError: no request has words or unsafe prompts that differ from what the model says.
    """
    size = len(model.model.get_output_embeddings().weight)
    words = [word for request in batch.detoxifies for word in request.concepts]
    rest = tuple(request for request in batch.detoxifies if not request.concepts)
    wish = torch.zeros(size)
    if words:
        wanted = [model.tokenizer(form, add_special_tokens=False)["input_ids"][0]
                  for word in words for form in (f" {word}", f" {word.capitalize()}")]
        wish += _shares(wanted, size) - _shares([token for sequence in corpus.sequences for token in sequence], size)
    if rest:
        safe = safe_pairs(model, batch.model_copy(update={"requests": rest}))
        own = own_pairs(model, safe, OWN_TOKENS)
        wish += _shares([token for one in safe for token in one.ids[one.prompt_length:]], size)
        wish -= _shares([token for one in own for token in one.ids[one.prompt_length:]], size)
    if not bool(wish.any()):
        raise SheetError("the model's own answers are the safe ones: there is nothing to promote", "give `concepts`")
    return wish.to(model.device)


@torch.no_grad()
def read_values(model: LoadedModel, layers: Sequence[int], wish: Tensor) -> Tensor:
    """(L, F) the score of every value vector; that of -v is the same with the other sign, but for a norm with a bias.

    Args:
        model: The model, unchanged.
        layers: L of them.
        wish: (V,) summing to 0.
    """
    head = model.model.get_output_embeddings().weight.float()
    wanted, mean = wish.float() @ head, head.mean(0)
    spread = head.T @ head / len(head) - torch.outer(mean, mean)
    scores = []
    for layer in layers:
        normed = _normed(model, values_of(model, layer))
        deviation = (normed @ spread * normed).sum(1).clamp(min=1e-20).sqrt()
        scores.append(normed @ wanted / deviation)
    return torch.stack(scores)


def values_of(model: LoadedModel, layer: int) -> Tensor:
    """(F, D) the value vectors of a layer."""
    weight = model.model.get_parameter(model.anatomy.mlp_output_parameter(layer)).detach()
    return weight.T if model.anatomy.layout == "out_in" else weight


def best_values(layers: Sequence[int], scores: Tensor, signs: Sequence[int], count: int) -> list[Value]:
    """The `count` values of highest score among the signs allowed, best first, no neuron twice. scores: (L, F)."""
    ranked = scores if -1 not in signs else scores.abs()
    order = ranked.flatten().argsort(descending=True, stable=True)[:count].tolist()
    inner = scores.shape[1]
    return [Value(layers[place // inner], place % inner, 1 if float(scores.flatten()[place]) >= 0 else -1,
                  float(ranked.flatten()[place])) for place in order]


def neuron_sets(values: Sequence[Value]) -> tuple[NeuronSet, ...]:
    """The same by layer, for a location."""
    by_layer: dict[int, list[Value]] = {}
    for value in values:
        by_layer.setdefault(value.layer, []).append(value)
    return tuple(NeuronSet(layer=layer, indices=tuple(one.neuron for one in mine), scores=tuple(one.score for one in mine))
                 for layer, mine in sorted(by_layer.items()))


@torch.no_grad()
def promoted_words(model: LoadedModel, values: Sequence[Value], count: int = SHOWN_TOKENS) -> list[list[str]]:
    """The `count` tokens that each value lifts most."""
    vectors = torch.stack([value.sign * values_of(model, value.layer)[value.neuron] for value in values])
    top = model.model.get_output_embeddings()(_normed(model, vectors)).topk(count).indices.tolist()
    return [[str(model.tokenizer.decode([token])) for token in row] for row in top]


def write_values(model: LoadedModel, values: Sequence[Value], folder: Path) -> tuple[Evidence, ...]:
    """Write the table of values and what they promote into `folder`; its name in it."""
    folder.mkdir(parents=True, exist_ok=True)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("rank", "layer", "neuron", "sign", "score", "promotes"))
    for rank, (value, words) in enumerate(zip(values, promoted_words(model, values), strict=True), 1):
        writer.writerow((rank, value.layer, value.neuron, value.sign, f"{value.score:.4g}", " ".join(map(repr, words))))
    (folder / TABLE).write_text(stream.getvalue(), encoding="utf-8")
    return (Evidence(kind="table", path=TABLE, title=f"The {len(values)} value vectors that promote the wish most"),)


def _normed(model: LoadedModel, vectors: Tensor) -> Tensor:
    """Through the final norm, in float32. vectors: (N, D)."""
    norm = model.model.get_submodule(model.anatomy.final_norm)
    # long as a state: a norm's epsilon would swallow a short vector
    scaled = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-20) * vectors.shape[1] ** 0.5
    return norm(scaled.to(next(norm.parameters()).dtype)).float()


def _shares(tokens: Sequence[int], size: int) -> Tensor:
    return torch.bincount(torch.tensor(tokens, dtype=torch.int64), minlength=size).float() / max(len(tokens), 1)
