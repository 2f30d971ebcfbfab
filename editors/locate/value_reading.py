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

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from editors.contract import EditBatch, NeuronSet
from editors.errors import SheetError
from editors.loading import LoadedModel
from editors.moments import Corpus
from editors.own_answers import own_pairs, safe_pairs

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
    """What is to be promoted, two wishes t (2, V) float32 that each sum to 0 and must both be met.

    Concepts are to rise above all words, and above the words of ordinary text: by the first alone values that lift
    whatever is frequent would win, by the second those that lift what nobody says. For requests without concepts safe
    answers are to rise above the model's own.

    Raises:
        SheetError: no request has words or unsafe prompts that differ from what the model says.
    """
    size = len(model.model.get_output_embeddings().weight)
    words = [word for request in batch.detoxifies for word in request.concepts]
    rest = tuple(request for request in batch.detoxifies if not request.concepts)
    wish = torch.zeros(2, size)
    if words:
        wanted = [model.tokenizer(form, add_special_tokens=False)["input_ids"][0]
                  for word in words for form in (f" {word}", f" {word.capitalize()}")]
        usual = _shares([token for sequence in corpus.sequences for token in sequence], size)
        wish += _shares(wanted, size) - torch.stack([torch.full((size,), 1 / size), usual])
    if rest:
        safe = safe_pairs(model, batch.model_copy(update={"requests": rest}))
        own = own_pairs(model, safe, OWN_TOKENS)
        wish += _shares([token for one in safe for token in one.ids[one.prompt_length:]], size)
        wish -= _shares([token for one in own for token in one.ids[one.prompt_length:]], size)
    if not bool(wish.any()):
        raise SheetError("the model's own answers are the safe ones: there is nothing to promote", "give `concepts`")
    return wish.to(model.device)


def read_values(model: LoadedModel, layers: Sequence[int], wish: Tensor) -> Tensor:
    """(L, F) the score of every value vector: the lesser of its scores for the wishes, 0 where they differ in sign. That of
    -v is the same with the other sign, but for a norm with a bias.

    Args:
        model: The model, unchanged.
        layers: L of them.
        wish: (W, V), each summing to 0.
    """
    return read_wishes(model, layers, [wish])[0]


@torch.no_grad()
def read_wishes(model: LoadedModel, layers: Sequence[int], wishes: Sequence[Tensor]) -> Tensor:
    """(N, L, F): `read_values` for N wishes in one pass over the values."""
    head = model.model.get_output_embeddings().weight.float()
    mean = head.mean(0)
    wanted = [wish.float() @ head for wish in wishes]
    spread = head.T @ head / len(head) - torch.outer(mean, mean)
    scores: list[list[Tensor]] = [[] for _ in wishes]
    for layer in layers:
        normed = _normed(model, values_of(model, layer))
        deviation = (normed @ spread * normed).sum(1).clamp(min=1e-20).sqrt()
        for found, one in zip(scores, wanted, strict=True):
            each = normed @ one.T / deviation[:, None]
            agreed = (each.sign() == each[:, :1].sign()).all(1)
            found.append(torch.where(agreed, each[:, 0].sign() * each.abs().amin(1), 0.0))
    return torch.stack([torch.stack(found) for found in scores])


def values_of(model: LoadedModel, layer: int) -> Tensor:
    """(F, D) the value vectors of a layer."""
    weight = model.model.get_parameter(model.anatomy.mlp_output_parameter(layer)).detach()
    return weight.T if model.anatomy.layout == "out_in" else weight


def signs_of(model: LoadedModel, layer: int) -> tuple[int, ...]:
    """Which signs an activation of the layer takes. A gated FFN, which multiplies two projections, has both: it has three
    matrices, or two with one of them double.
    """
    part = model.model.get_submodule(model.anatomy.mlp_path(layer))
    numbers = sum(weight.numel() for weight in part.parameters() if weight.ndim == 2)
    return (1, -1) if numbers >= 3 * model.anatomy.inner_size * model.anatomy.hidden_size else (1,)


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
def promoted(model: LoadedModel, values: Sequence[Value], count: int = SHOWN_TOKENS) -> list[list[tuple[str, float]]]:
    """The `count` tokens that each value lifts most, each with how far: in standard deviations of the value's logits."""
    vectors = torch.stack([value.sign * values_of(model, value.layer)[value.neuron] for value in values])
    logits = model.model.get_output_embeddings()(_normed(model, vectors).to(vectors.dtype)).float()
    lifts = (logits - logits.mean(1, keepdim=True)) / logits.std(1, correction=0, keepdim=True).clamp(min=1e-20)
    top = lifts.topk(count)
    return [[(str(model.tokenizer.decode([token])), lift) for token, lift in zip(tokens, heights, strict=True)]
            for tokens, heights in zip(top.indices.tolist(), top.values.tolist(), strict=True)]


def _normed(model: LoadedModel, vectors: Tensor) -> Tensor:
    """Through the final norm, in float32. vectors: (N, D)."""
    norm = model.model.get_submodule(model.anatomy.final_norm)
    # long as a state: a norm's epsilon would swallow a short vector
    scaled = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-20) * vectors.shape[1] ** 0.5
    return norm(scaled.to(next(norm.parameters()).dtype)).float()


def _shares(tokens: Sequence[int], size: int) -> Tensor:
    return torch.bincount(torch.tensor(tokens, dtype=torch.int64), minlength=size).float() / max(len(tokens), 1)
