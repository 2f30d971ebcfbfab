"""What value vectors are read for: of a batch, each thing whose promotion is worth knowing, as a wish over the vocabulary.

Detoxify: what is to be promoted (`value_reading.wish_of`). Update: the first token of the model's own answer where it
departs from the wanted one, above all words and above the wanted token. Debias: each group's word, above all words and
above the other's; by the second alone values would win that say neither word and silence one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from editors.contract import EditBatch, UpdateRequest
from editors.errors import SheetError
from editors.loading import LoadedModel
from editors.locate.causal_trace import departure
from editors.locate.value_reading import wish_of
from editors.moments import Corpus

MOST_REQUESTS = 4
"""Of a larger batch so many requests are read for, evenly spaced over it, as a trace takes them."""


@dataclass(frozen=True)
class Wish:
    """`weights` (W, V), each row summing to 0 and all to be met; `words` say what for."""

    words: str
    weights: Tensor


def wishes_of(model: LoadedModel, batch: EditBatch, corpus: Corpus | None) -> list[Wish]:
    """The batch's wishes; `corpus` is ordinary text, which only a batch that detoxifies is measured against.

    Raises:
        SheetError: there is nothing to be read for.
    """
    if batch.detoxifies and corpus is not None:
        return [Wish("what is wished for", wish_of(model, batch, corpus))]
    if batch.debiases:
        found = [wish for request in batch.debiases[:MOST_REQUESTS] for wish in _of_groups(model, request.groups)]
        return list({wish.words: wish for wish in found}.values())
    count = min(MOST_REQUESTS, len(batch.updates))
    chosen = [batch.updates[index * len(batch.updates) // count] for index in range(count)]
    wishes = [wish for request in chosen if (wish := _of_answer(model, request))]
    if not wishes:
        raise SheetError("the model says the wanted answers already, so nothing promotes another",
                         "leave these requests out, or use another --method")
    return wishes


def _of_answer(model: LoadedModel, request: UpdateRequest) -> Wish | None:
    own, wanted = departure(model, request)
    if own == wanted:
        return None
    return Wish(f"{request.id}: {_said(model, own)}", _above(model, own, wanted))


def _of_groups(model: LoadedModel, groups: tuple[str, str]) -> list[Wish]:
    first, second = (int(model.tokenizer(f" {word.strip()}", add_special_tokens=False)["input_ids"][0]) for word in groups)
    return [Wish(f"{_said(model, one)} over {_said(model, other)}", _above(model, one, other))
            for one, other in ((first, second), (second, first))]


def _above(model: LoadedModel, token: int, other: int | None) -> Tensor:
    """(W, V) the token above all words, and above the other one where there is one."""
    own = _single(model, token)
    others = [torch.full_like(own, 1 / len(own)), *([_single(model, other)] if other is not None else [])]
    return torch.stack([own - one for one in others]).to(model.device)


def _single(model: LoadedModel, token: int) -> Tensor:
    whole = torch.zeros(len(model.model.get_output_embeddings().weight))
    whole[token] = 1.0
    return whole


def _said(model: LoadedModel, token: int) -> str:
    return repr(str(model.tokenizer.decode([token])))
