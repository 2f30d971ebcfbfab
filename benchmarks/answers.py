"""How likely a model holds answers to be, and text: the reading that every benchmark shares.

P(answer | prompt) is the product over the answer's tokens, the answer read after the prompt and one blank, no BOS.
What need not be read is not: a sequence that another one begins with has no row of its own, rows are batched by length,
and the head runs at an answer's positions only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from editors.blocks import pad
from editors.loading import LoadedModel

TOKEN_BUDGET = 4096

Row = tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """log P of the whole answer, in nats; the model's first choice at each of its tokens, and where that is the token."""

    logarithm: float
    choices: tuple[int, ...]
    hits: tuple[bool, ...]
    leads: tuple[float, ...]
    """By how many nats each of its tokens is ahead of the best other token; negative where it is not the first choice."""

    @property
    def is_first_choice(self) -> bool:
        """Whether each of its tokens was the first choice."""
        return all(self.hits)

    @property
    def margin(self) -> float:
        """Nats that greedy decoding may lose before it says something else: the least lead."""
        return min(self.leads)

    @property
    def teacher_forced(self) -> float:
        """Share of its tokens that are the first choice after the right ones before them."""
        return sum(self.hits) / len(self.hits)


@torch.no_grad()
def answer_scores(model: LoadedModel, pairs: Sequence[tuple[str, str]]) -> list[Answer]:
    """Score (prompt, answer) pairs; pairs whose tokens begin another pair's share its row."""
    encoded = [encode(model, prompt, answer) for prompt, answer in pairs]
    hosts = _hosts(list(dict.fromkeys(ids[:-1] for ids, _ in encoded)))
    guests: dict[Row, list[int]] = {}
    for number, (ids, _) in enumerate(encoded):
        guests.setdefault(hosts[ids[:-1]], []).append(number)
    answers: dict[int, Answer] = {}
    for group in _groups(sorted(guests, key=len)):
        states = _final_states(model, group)
        numbers = [(place, number) for place, row in enumerate(group) for number in guests[row]]
        reads = list(dict.fromkeys((place, column) for place, number in numbers for column in _read_columns(encoded[number])))
        rows, columns = torch.tensor(reads, device=states.device).T
        # One product for all reads: the head is a fifth of the model, and reading it once for each would dominate
        logits = model.model.get_output_embeddings()(states[rows, columns]).float()
        normaliser, choices, best = logits.logsumexp(-1).tolist(), logits.argmax(-1).tolist(), logits.topk(2).values.tolist()
        where = {read: index for index, read in enumerate(reads)}
        for place, number in numbers:
            ids, start = encoded[number]
            places = [where[place, column] for column in _read_columns(encoded[number])]
            values = logits[places, ids[start:]].tolist()
            chosen = tuple(choices[index] for index in places)
            logarithm = sum(value - normaliser[index] for value, index in zip(values, places, strict=True))
            hits = tuple(token == label for token, label in zip(chosen, ids[start:], strict=True))
            leads = tuple(value - best[index][hit] for value, index, hit in zip(values, places, hits, strict=True))
            answers[number] = Answer(logarithm, chosen, hits, leads)
    return [answers[number] for number in range(len(pairs))]


@torch.no_grad()
def perplexity(model: LoadedModel, texts: Sequence[str], window: int = 256) -> float:
    """Perplexity per token of the texts' first `window` tokens."""
    rows = sorted((tuple(model.tokenizer(text)["input_ids"][:window]) for text in texts), key=len)
    total, count = 0.0, 0
    for group in _groups([row for row in rows if len(row) > 1], budget=1024):
        states = _final_states(model, group)
        for place, row in enumerate(group):
            logits = model.model.get_output_embeddings()(states[place, :len(row) - 1]).float()
            labels = torch.tensor(row[1:], device=logits.device)
            total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
            count += len(row) - 1
    return float(torch.tensor(total / count).exp())


def encode(model: LoadedModel, prompt: str, answer: str) -> tuple[Row, int]:
    """The pair's tokens, and where the answer's begin."""
    before = model.tokenizer(prompt.rstrip())["input_ids"]
    after = model.tokenizer(f" {answer.strip()}", add_special_tokens=False)["input_ids"]
    return (*before, *after), len(before)


def _hosts(rows: Sequence[Row]) -> dict[Row, Row]:
    """For every row the one that is read in its place: itself, or a longer one that begins with it."""
    hosts: dict[Row, Row] = {}
    begun: dict[Row, Row] = {}
    for row in sorted(rows, key=len, reverse=True):
        hosts[row] = begun.get(row, row)
        if row not in begun:
            begun |= {row[:length]: row for length in range(1, len(row) + 1)}
    return hosts


def _read_columns(encoded: tuple[Row, int]) -> range:
    ids, start = encoded
    return range(start - 1, len(ids) - 1)


def _groups(rows: Sequence[Row], budget: int = TOKEN_BUDGET) -> list[list[Row]]:
    groups: list[list[Row]] = [[]]
    for row in rows:
        if groups[-1] and len(row) * (len(groups[-1]) + 1) > budget:
            groups.append([])
        groups[-1].append(row)
    return groups


def _final_states(model: LoadedModel, rows: Sequence[Row]) -> torch.Tensor:
    batch = pad(rows, model.device)
    body = model.model.get_submodule(model.anatomy.body)
    return body(input_ids=batch.ids, attention_mask=batch.valid.long(), use_cache=False).last_hidden_state
