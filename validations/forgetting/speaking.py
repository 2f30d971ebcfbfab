"""What a model says after a text: its greedy answer, and answers drawn at a temperature. The texts live in memory only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from editors.cached import forward
from editors.loading import LoadedModel
from validations.generating import generate
from validations.reading import Reading, Tokens, batches, read

ROWS_AT_MOST = 128
TOKENS_AT_MOST = 4096
"""Of the keys and values of answers that are drawn together."""


@dataclass(frozen=True, repr=False)
class Turn:
    """A text to go on from, in tokens, and how far."""

    prompt: Tokens
    room: int
    given: int = 0
    """Tokens at the prompt's end that are told with the answer, because they begin the secret."""


@dataclass(frozen=True)
class Draw:
    """How one answer is drawn."""

    seed: int
    temperature: float = 1.0
    likeliest: int | None = None
    """Tokens it is drawn from; None: all."""


def greedy(model: LoadedModel, turns: Sequence[Turn]) -> list[str]:
    """The first choices after each text, up to an end token."""
    said: dict[int, str] = {}
    for batch in batches([turn.prompt for turn in turns]):
        reading = read(model, [turns[index].prompt for index in batch])
        answers = generate(model, reading, [turns[index].room for index in batch])
        said.update({index: _text(model, turns[index], tokens) for index, (tokens, _) in zip(batch, answers, strict=True)})
    return [said[index] for index in range(len(turns))]


def drawn(model: LoadedModel, turns: Sequence[Turn], draws: Sequence[Sequence[Draw]]) -> list[list[str]]:
    """Answers drawn after each text, as many as it has draws. Each depends on its own seed alone; end tokens do not end it."""
    return [[_text(model, turn, tokens) for tokens in several]
            for turn, several in zip(turns, drawn_tokens(model, turns, draws), strict=True)]


def drawn_tokens(model: LoadedModel, turns: Sequence[Turn], draws: Sequence[Sequence[Draw]]) -> list[list[Tokens]]:
    """The same in tokens."""
    said: dict[tuple[int, int], Tokens] = {}
    for batch in batches([turn.prompt for turn in turns]):
        reading = read(model, [turns[index].prompt for index in batch])
        wanted = [(row, index, number) for row, index in enumerate(batch) for number in range(len(draws[index]))]
        room = max(turns[index].room for index in batch)
        size = max(1, min(ROWS_AT_MOST, TOKENS_AT_MOST // (reading.mask.shape[1] + room)))
        for start in range(0, len(wanted), size):
            chunk = wanted[start:start + size]
            state = reading.select(torch.tensor([row for row, _, _ in chunk], device=model.device))
            answers = _spoken(model, state, [draws[index][number] for _, index, number in chunk], room)
            said.update({(index, number): tokens[:turns[index].room]
                         for (_, index, number), tokens in zip(chunk, answers, strict=True)})
    return [[said[index, number] for number in range(len(draws[index]))] for index in range(len(turns))]


@torch.inference_mode()
def _spoken(model: LoadedModel, state: Reading, draws: Sequence[Draw], room: int) -> list[Tokens]:
    uniform = torch.stack([torch.rand(room, generator=torch.Generator().manual_seed(draw.seed)) for draw in draws])
    said = []
    for step in range(room):
        chosen = chosen_tokens(state.logits, uniform[:, step].to(model.device), draws)
        said.append(chosen)
        if step + 1 < room:
            mask = torch.cat([state.mask, torch.ones_like(chosen)[:, None]], dim=-1)
            logits, cache = forward(model, chosen[:, None], mask, state.lengths[:, None], state.cache, last_only=True)
            state = Reading(cache, mask, state.lengths + 1, logits[:, -1])
    return [tuple(row) for row in torch.stack(said, dim=1).tolist()]


def chosen_tokens(logits: torch.Tensor, uniform: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """One token a row by inverse transform over its distribution. logits: (rows, V); uniform: (rows,) in [0, 1)."""
    temperature = torch.tensor([draw.temperature for draw in draws], device=logits.device)
    scaled = logits / temperature[:, None]
    for row, draw in enumerate(draws):
        if draw.likeliest is not None and draw.likeliest < scaled.shape[1]:
            scaled[row, scaled[row] < scaled[row].topk(draw.likeliest).values[-1]] = -torch.inf
    cumulated = scaled.double().softmax(-1).cumsum(-1)
    return (cumulated <= uniform.double()[:, None]).sum(-1).clamp(max=logits.shape[1] - 1)


def _text(model: LoadedModel, turn: Turn, tokens: Tokens) -> str:
    told = (*turn.prompt[len(turn.prompt) - turn.given:], *tokens)
    return str(model.tokenizer.decode(list(told), skip_special_tokens=True))
