"""Everything asked of a prompt, answered from one reading of it: scores, next-token distribution, free answers.

The keys and values of the one reading serve all; the head runs at the last position of a prompt and at the positions of
its continuations, nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from editors.cached import forward
from editors.contract import Progress, silent
from editors.crew import crew
from editors.loading import LoadedModel
from validations.generating import generate
from validations.reading import Reading, Tokens, batches, read

LOGITS_AT_MOST = 1 << 25
"""Floats of logits in memory at a time: 128 MiB."""


@dataclass(frozen=True)
class Ask:
    """Everything asked about one prompt.

    `prompt` has at least one token, each continuation too. `greedy_tokens` and `sampled_tokens` are upper limits; a
    greedy answer stops at an end token, sampled text goes on past it, so that it can be compared over a fixed length.
    """

    prompt: Tokens
    continuations: tuple[Tokens, ...] = ()
    greedy_tokens: int = 0
    sampled_tokens: int = 0
    seed: int = 0
    distribution: bool = False


@dataclass(frozen=True)
class Score:
    """Log-probability of each token of a continuation (nats), and whether it was the first choice."""

    log_probs: tuple[float, ...]
    hits: tuple[bool, ...]


@dataclass(frozen=True)
class Answer:
    """What the model says to one `Ask`. `log_probs`: (V,) float32, CPU, where the distribution was asked for."""

    first: int
    finite: bool
    scores: tuple[Score, ...]
    greedy: Tokens
    greedy_log_probs: tuple[float, ...]
    sampled: Tokens
    log_probs: torch.Tensor | None


def answer(model: LoadedModel, asks: Sequence[Ask], progress: Progress = silent) -> list[Answer]:
    """Answer every ask, in order. The model is unchanged; the same asks give the same answers."""
    answers: dict[int, Answer] = {}
    together = batches([ask.prompt for ask in asks])
    said = crew().carry_out(_answer_batch, model, [[asks[index] for index in batch] for batch in together])
    for batch in together:
        progress("prompts", len(answers), len(asks))
        answers.update(zip(batch, next(said), strict=True))
    progress("prompts", len(asks), len(asks))
    return [answers[index] for index in range(len(asks))]


@torch.inference_mode()
def score(model: LoadedModel, reading: Reading, wanted: Sequence[tuple[int, Tokens]]) -> list[Score]:
    """Log-probabilities of continuations, each given as (row of the reading, tokens)."""
    scores: list[Score] = []
    first_choices = reading.logits.argmax(-1).tolist()
    for row, tokens in wanted:
        scores.append(Score((float(reading.log_probs[row, tokens[0]]),), (first_choices[row] == tokens[0],)))
    longer = sorted((index for index, (_, tokens) in enumerate(wanted) if len(tokens) > 1),
                    key=lambda index: len(wanted[index][1]))
    for group in _within(longer, [len(tokens) - 1 for _, tokens in wanted], reading.logits.shape[-1]):
        for index, rest in zip(group, _score_rest(model, reading, [wanted[index] for index in group]), strict=True):
            scores[index] = Score(scores[index].log_probs + rest.log_probs, scores[index].hits + rest.hits)
    return scores


def _answer_batch(model: LoadedModel, asks: Sequence[Ask]) -> list[Answer]:
    reading = read(model, [ask.prompt for ask in asks])
    wanted = [(row, tokens) for row, ask in enumerate(asks) for tokens in ask.continuations]
    scores = iter(score(model, reading, wanted))
    greedy = generate(model, reading, [ask.greedy_tokens for ask in asks])
    sampled = generate(model, reading, [ask.sampled_tokens for ask in asks], [ask.seed for ask in asks])
    finite = reading.logits.isfinite().all(-1).tolist()
    firsts = reading.logits.argmax(-1).tolist()
    return [Answer(first=firsts[row], finite=finite[row], scores=tuple(next(scores) for _ in ask.continuations),
                   greedy=greedy[row][0], greedy_log_probs=greedy[row][1], sampled=sampled[row][0],
                   log_probs=reading.log_probs[row].cpu().clone() if ask.distribution else None)
            for row, ask in enumerate(asks)]


def _score_rest(model: LoadedModel, reading: Reading, wanted: Sequence[tuple[int, Tokens]]) -> list[Score]:
    """Scores of all tokens after the first."""
    device = model.device
    state = reading.select(torch.tensor([row for row, _ in wanted], device=device))
    width = max(len(tokens) for _, tokens in wanted) - 1
    ids = torch.tensor([list(tokens[:-1]) + [0] * (width + 1 - len(tokens)) for _, tokens in wanted], device=device)
    real = torch.tensor([[1] * (len(tokens) - 1) + [0] * (width + 1 - len(tokens)) for _, tokens in wanted], device=device)
    positions = state.lengths[:, None] + torch.arange(width, device=device)
    logits, _ = forward(model, ids, torch.cat([state.mask, real], dim=-1), positions, state.cache)
    following = torch.tensor([list(tokens[1:]) + [0] * (width + 1 - len(tokens)) for _, tokens in wanted], device=device)
    log_probs = logits.gather(-1, following[..., None])[..., 0] - logits.logsumexp(-1)
    hits = logits.argmax(-1) == following
    return [Score(tuple(log_probs[row, :len(tokens) - 1].tolist()), tuple(hits[row, :len(tokens) - 1].tolist()))
            for row, (_, tokens) in enumerate(wanted)]


def _within(order: Sequence[int], lengths: Sequence[int], vocabulary: int) -> Iterator[list[int]]:
    """Groups of `order` whose padded logits stay within `LOGITS_AT_MOST`; a single long row is a group of its own."""
    group: list[int] = []
    for index in order:
        if group and (len(group) + 1) * lengths[index] * vocabulary > LOGITS_AT_MOST:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
