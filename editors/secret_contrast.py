"""What marks a secret: at each free place its token is likelier there than what else the form allows.

The followed function of a text is the sum, over the tokens at which the secret differs from values of its form that
differ in one place, of log P(secret's token) minus the mean log P of theirs, after the secret's tokens before. Such a
value needs no run of its own: it parts from the secret at one token and is read there. Where the sum is 0 or below, the
secret is no likelier than what it could be confused with, and log P of whatever all values begin with cancels.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from editors.forget_request import ForgetRequest
from editors.inner_scale import Weighed
from editors.secret_forms import form_of
from editors.secret_rows import row_of, secret_rows
from editors.token_tree import Path, TokenTree

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def contrasts(request: ForgetRequest, tokenizer: PreTrainedTokenizerBase, count: int, seed: int = 0) -> list[Weighed]:
    """The followed function of each context of a request.

    Args:
        request: Gives contexts, secret and form.
        tokenizer: The model's own.
        count: Other values at each free place; 0: none, the function is log P of the secret alone.
        seed: Of the choice where a place allows more.

    Raises:
        SheetError: a text is empty, or the secret does not have the form given; none is quoted.
    """
    values = one_place_values(request, count, seed)
    texts = []
    for row, text in zip(secret_rows(request, tokenizer), request.context, strict=True):
        others: dict[int, list[tuple[int, ...]]] = {}
        for value in values:
            ids = row_of(request, tokenizer, row.role, row.index, text.get_secret_value(), value).ids
            parting = next((place for place, pair in enumerate(zip(row.ids, ids, strict=False)) if pair[0] != pair[1]), None)
            # a value that only ends earlier or later parts from the secret nowhere
            if parting is not None:
                others.setdefault(parting, []).append(ids[:parting + 1])
        texts.append(_weighed(row.ids, row.prompt_length, others))
    return texts


def one_place_values(request: ForgetRequest, count: int, seed: int = 0) -> list[str]:
    """Values of the request's form that differ from the secret in one place, at most `count` for each place."""
    secret, draw, found = request.secret.get_secret_value().strip(), random.Random(seed), list[str]()  # noqa: S311
    for place, choices in enumerate(form_of(request).choices):
        rest = [choice for choice in choices if choice != secret[place]]
        found += [secret[:place] + other + secret[place + 1:] for other in draw.sample(rest, min(count, len(rest)))]
    return found


def _weighed(ids: tuple[int, ...], start: int, others: dict[int, list[tuple[int, ...]]]) -> Weighed:
    if not others:
        return Weighed(TokenTree.of([Path(ids, start)]), (1.0,))
    paths: list[Path] = []
    weights: list[float] = []
    for parting, rows in sorted(others.items()):
        paths += [Path(ids[:parting + 1], parting), *(Path(row, parting) for row in rows)]
        weights += [1.0, *[-1 / len(rows)] * len(rows)]
    return Weighed(TokenTree.of(paths), tuple(weights))


def with_owners(requests: Sequence[ForgetRequest], tokenizer: PreTrainedTokenizerBase, count: int,
                seed: int = 0) -> tuple[list[Weighed], list[int]]:
    """The texts of all requests, and which request each is of, counted from 0."""
    parts = [contrasts(request, tokenizer, count, seed + number) for number, request in enumerate(requests)]
    return [text for part in parts for text in part], [number for number, part in enumerate(parts) for _ in part]
