"""From requests to detoxify to whole texts: toxic and calm continuations, harmless texts to hold, and others to measure by."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from editors.contract import EditBatch
from editors.detoxify_request import REFUSAL, DetoxifyRequest
from editors.errors import SheetError
from editors.loading import LoadedModel
from editors.own_answers import encoded_pair, own_pairs
from editors.prompts import Encoded

SENTENCES = Path(__file__).with_name("harmless_sentences.json")
"""Harmless texts with words that are often abused, quoted or denied; written for this house."""
MEASURED = 4
"""One sentence in so many is not held, and tells the price."""


def sentences() -> list[str]:
    """Those of this house."""
    return list(json.loads(SENTENCES.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Texts:
    """What an edit is made of, and measured by. `held`: groups, each of which keeps its mean log-probability."""

    toxic: tuple[Encoded, ...]
    calm: tuple[Encoded, ...]
    held: tuple[tuple[Encoded, ...], ...]
    measured: tuple[Encoded, ...]


def texts_of(model: LoadedModel, batch: EditBatch, own_tokens: int) -> Texts:
    """Toxic continuations: the sheet's, or the model's own first choice. Calm ones: the sheet's, and in a chat the refusal.

    Every fourth sentence of this house is measured, the rest is held, so that what was paid is not told by what was held.

    Raises:
        SheetError: no request has unsafe prompts.
    """
    pairs = [(request, one) for request in batch.detoxifies for one in request.unsafe]
    if not pairs:
        raise SheetError("no request has unsafe prompts", "add `unsafe`, or use method: promote_values")
    shown = [encoded_pair(model, request, one.prompt, one.toxic) for request, one in pairs if one.toxic]
    unshown = [encoded_pair(model, request, one.prompt, "") for request, one in pairs if not one.toxic]
    answers = [(request, one.prompt, one.answer or (REFUSAL if request.form == "chat" else "")) for request, one in pairs]
    calm = [encoded_pair(model, request, prompt, answer) for request, prompt, answer in answers if answer]
    house = [_whole(model, text) for text in sentences()]
    groups = (_benign(model, batch.detoxifies, own_tokens), tuple(one for place, one in enumerate(house) if place % MEASURED))
    return Texts((*shown, *own_pairs(model, unshown, own_tokens)), tuple(calm), tuple(filter(None, groups)),
                 tuple(house[::MEASURED]))


def _benign(model: LoadedModel, requests: Sequence[DetoxifyRequest], own_tokens: int) -> tuple[Encoded, ...]:
    """A sheet's harmless prompts: of a chat with the model's own answers, of plain text as they stand."""
    chats = [encoded_pair(model, request, one.prompt, "") for request in requests if request.form == "chat"
             for one in request.benign]
    texts = [_whole(model, f"{one.prompt} {one.answer or ''}") for request in requests if request.form == "plain"
             for one in request.benign]
    return (*own_pairs(model, chats, own_tokens), *texts)


def _whole(model: LoadedModel, text: str) -> Encoded:
    ids = tuple(model.tokenizer(text.strip())["input_ids"])
    return Encoded(ids, 1, len(ids) - 1)
