"""From requests to facts: the keys to write and the sequences that say what each key must bring about.

Requests whose edited token has the same past have the same key, whatever follows; they become one fact. A token that
opens the whole sequence has a key like no other (its state is where attention rests, often ten times as large): in a
prompt that begins with it the key is a fact of its own, beside the one of its contexts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from editors.contexts import contexts
from editors.contract import EditBatch, Location, Message, UpdateRequest
from editors.prompts import Encoded, PositionRule, Prompt, encode, render
from editors.suffix import Row
from editors.target_search import TargetRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ESSENCES = ("{} is a",)
"""Neutral prompts about the subject; what the model says after them should stay. Authors: the same one."""

QUESTIONS = Path(__file__).with_name("ordinary_questions.json")
"""What people ask an assistant on an ordinary day; written for this house, none of it in the held-out prompts."""


class Tokenized(Protocol):
    """A model, or what is known of one: here only its tokenizer counts."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""


@dataclass(frozen=True)
class KeyRow:
    """One occurrence of a fact's key: the tokens up to and with the edited one, and its weight in the average."""

    ids: tuple[int, ...] = field(repr=False)
    owner: int
    weight: float


@dataclass(frozen=True)
class Facts:
    """N facts. `requests[n]`: ids of the requests that fact n carries out."""

    requests: tuple[tuple[str, ...], ...]
    keys: tuple[KeyRow, ...]
    targets: tuple[TargetRow, ...]

    @property
    def count(self) -> int:
        """N."""
        return len(self.requests)


def facts_of(model: Tokenized, batch: EditBatch, location: Location, position: PositionRule, context_count: int) -> Facts:
    """The batch's facts, in the order of its requests.

    Args:
        model: Gives the tokenizer.
        batch: The requests.
        location: Gives each request's position; where it lacks one, the rule `position` finds it.
        position: A rule of `editors.prompts`.
        context_count: Contexts besides the bare prompt.
    """
    owners: dict[tuple[bool, tuple[int, ...]], list[str]] = {}
    places: dict[tuple[bool, tuple[int, ...]], int] = {}
    keys: list[KeyRow] = []
    targets: list[TargetRow] = []
    for request in batch.updates:
        index = location.positions.get(request.id)
        if index is None:
            index = encode(render(request, model.tokenizer, position), model.tokenizer).anchor
        encoded = [encode(prompt, model.tokenizer) for prompt in contexts(request, model.tokenizer, index, context_count)]
        past = encoded[0].ids[:encoded[0].anchor + 1]
        for is_opening, group in _by_key(encoded):
            is_new = (is_opening, past) not in owners
            owners.setdefault((is_opening, past), []).append(request.id)
            owner = places.setdefault((is_opening, past), len(places))
            targets += [_target_row(row, owner, place) for place, row in enumerate(group)]
            if is_new:
                weights = _weights(len(group), has_bare=group[0] is encoded[0])
                keys += [KeyRow(row.ids[:row.anchor + 1], owner, weight) for row, weight in zip(group, weights, strict=True)]
                targets += _essences(model, request, owner) if is_opening == (len(past) == 1) else []
    return Facts(tuple(tuple(ids) for ids in owners.values()), tuple(keys), tuple(targets))


def ordinary_keys(model: Tokenized, position: PositionRule) -> tuple[KeyRow, ...]:
    """Where ordinary chat questions have the key that a chat edit by this rule would change; one owner a question."""
    rule: PositionRule = "prompt_last" if position == "prompt_last" else "question_last"
    rows = []
    for owner, question in enumerate(json.loads(QUESTIONS.read_text(encoding="utf-8"))):
        request = UpdateRequest(id="ordinary", messages=(Message(role="user", content=question),), answer=question)
        encoded = encode(render(request, model.tokenizer, rule), model.tokenizer)
        rows.append(KeyRow(encoded.ids[:encoded.anchor + 1], owner, 1.0))
    return tuple(rows)


def with_shared_answers(facts: Facts, batch: EditBatch) -> tuple[tuple[TargetRow, ...], tuple[int, ...]]:
    """The target rows with one owner for all facts that say the same, and each fact's owner among those.

    Facts of several requests say the same when the first of each do.
    """
    answers = {request.id: request.target_text for request in batch.updates}
    said = [answers[ids[0]] for ids in facts.requests]
    order = list(dict.fromkeys(said))
    owner = tuple(order.index(answer) for answer in said)
    return tuple(replace(row, row=replace(row.row, owner=owner[row.row.owner])) for row in facts.targets), owner


def _by_key(encoded: list[Encoded]) -> list[tuple[bool, list[Encoded]]]:
    """The occurrences that share a key: all of them, or the bare prompt apart where its edited token opens it."""
    if encoded[0].anchor > 0:
        return [(False, encoded)]
    return [(True, encoded[:1]), *([(False, encoded[1:])] if len(encoded) > 1 else [])]


def _target_row(row: Encoded, owner: int, context: int) -> TargetRow:
    reads = tuple(range(row.prompt_length - 1, len(row.ids) - 1))
    return TargetRow(Row(row.ids, row.anchor, owner, reads), row.ids[row.prompt_length:], context)


def _weights(count: int, *, has_bare: bool) -> list[float]:
    """The bare prompt weighs one half, the others share the rest: a mean of group means, as the authors take it."""
    if count == 1 or not has_bare:
        return [1 / count] * count
    return [0.5, *[0.5 / (count - 1)] * (count - 1)]


def _essences(model: Tokenized, request: UpdateRequest, owner: int) -> Sequence[TargetRow]:
    if request.is_chat or not request.subject:
        return []
    rows = []
    for template in ESSENCES:
        text = template.replace("{}", request.subject)
        encoded = encode(Prompt(text, anchor_end=template.index("{}") + len(request.subject)), model.tokenizer)
        rows.append(TargetRow(Row(encoded.ids, encoded.anchor, owner, (encoded.anchor, len(encoded.ids) - 1))))
    return rows


