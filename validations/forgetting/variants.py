"""The same model otherwise: quantised, or trained a little further; bit for bit as before when the block is left.

An edit may hide a secret instead of removing it: rounding the weights (Zhang et al. 2024, arXiv:2410.16454) or a few
training steps on other text (Hu et al. 2024, arXiv:2406.13356) bring back what only an obfuscation kept down.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch

from editors.forget_request import ForgetRequest
from editors.loading import LoadedModel
from validations.observation import held_out_texts
from validations.reading import Tokens

LARGEST_INT8 = 127
LINE_TOKENS = 32
"""Longest sequence that is trained on."""


@contextmanager
def quantised(model: LoadedModel) -> Iterator[None]:
    """Every matrix of the blocks rounded to int8, symmetric, one scale an output channel; computed in the model's dtype."""
    matrices = [parameter for parameter in _block_parameters(model) if parameter.ndim == 2]
    with _restored(matrices), torch.no_grad():
        for matrix in matrices:
            matrix.copy_(rounded(matrix, input_axis=1 if model.anatomy.layout == "out_in" else 0))
        yield


def rounded(matrix: torch.Tensor, input_axis: int) -> torch.Tensor:
    """The matrix as int8 holds it: 255 levels between minus and plus the largest value of each output channel."""
    scale = matrix.detach().abs().amax(input_axis, keepdim=True) / LARGEST_INT8
    levels = (matrix.detach() / scale.clamp(min=torch.finfo(matrix.dtype).tiny)).round().clamp(-LARGEST_INT8, LARGEST_INT8)
    return levels.to(torch.int8).to(matrix.dtype) * scale


@dataclass(frozen=True)
class Training:
    """A little training: AdamW on the weights of all blocks, without warm-up or decay."""

    steps: int
    rate: float
    tokens: int
    """Of one step."""
    seed: int


@contextmanager
def relearned(model: LoadedModel, lines: Sequence[Tokens], training: Training) -> Iterator[None]:
    """The model trained on some token sequences. Takes four times the memory of the blocks while it trains, twice after."""
    weights = _block_parameters(model)
    asked = [(parameter, parameter.requires_grad) for parameter in model.model.parameters()]
    with _restored(weights):
        try:
            for parameter in model.model.parameters():
                parameter.requires_grad_(False)
            _train(model, weights, lines, training)
        finally:
            for parameter, wanted in asked:
                parameter.grad = None
                parameter.requires_grad_(wanted)
        yield


def about_the_person(model: LoadedModel, requests: Sequence[ForgetRequest]) -> list[Tokens]:
    """What else is said of these people: retained facts, and the contexts and paraphrases without the secret."""
    texts = [text.get_secret_value().strip() for one in requests for text in (*one.context, *one.paraphrases)]
    texts += [f"{fact.prompt.get_secret_value().rstrip()} {fact.answer.get_secret_value().strip()}"
              for one in requests for fact in one.retain]
    return _lines(model, texts)


def unrelated(model: LoadedModel) -> list[Tokens]:
    """The house's held-out text, which names none of them."""
    return _lines(model, held_out_texts())


def _lines(model: LoadedModel, texts: Sequence[str]) -> list[Tokens]:
    encoded = [tuple(ids[:LINE_TOKENS]) for ids in model.tokenizer(list(texts))["input_ids"]]
    return [ids for ids in encoded if len(ids) > 1]


def _train(model: LoadedModel, weights: Sequence[torch.nn.Parameter], lines: Sequence[Tokens], training: Training) -> None:
    for parameter in weights:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(weights, lr=training.rate, weight_decay=0.0, fused=True)
    for batch in islice(_batches(lines, training), training.steps):
        optimiser.zero_grad()
        with torch.enable_grad():
            _loss(model, batch).backward()
        optimiser.step()


def _batches(lines: Sequence[Tokens], training: Training) -> Iterator[list[Tokens]]:
    """Lines in random order, again and again, as many together as a step may take, one at least."""
    draw = torch.Generator().manual_seed(training.seed)
    batch: list[Tokens] = []
    while lines:
        for place in torch.randperm(len(lines), generator=draw).tolist():
            if batch and sum(map(len, batch)) + len(lines[place]) > training.tokens:
                yield batch
                batch = []
            batch.append(lines[place])


def _loss(model: LoadedModel, batch: Sequence[Tokens]) -> torch.Tensor:
    """Mean loss (nats) over all tokens but the first of each line."""
    width = max(map(len, batch))
    ids = torch.tensor([[*line, *[0] * (width - len(line))] for line in batch], device=model.device)
    real = torch.tensor([[1] * len(line) + [0] * (width - len(line)) for line in batch], device=model.device)
    logits = model.model(input_ids=ids, attention_mask=real, use_cache=False).logits[:, :-1].float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].masked_fill(real[:, 1:] == 0, -100).flatten())


def _block_parameters(model: LoadedModel) -> list[torch.nn.Parameter]:
    return [parameter for name, parameter in model.model.named_parameters() if model.anatomy.layer_of(name) is not None]


@contextmanager
def _restored(parameters: Sequence[torch.nn.Parameter]) -> Iterator[None]:
    before = [parameter.detach().clone() for parameter in parameters]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, was in zip(parameters, before, strict=True):
                parameter.copy_(was)
