"""Other people where a secret is forgotten: their names, and all that follows, in the texts of the request.

A forgotten secret shares its neurons with every record of its form, so what is written at one person's name is felt under
other names as well, and again at each token of what is said of them. So invented people stand in the request's own texts,
each with a value of the secret's form, and the keys of every token from the end of the name on are held. Each request has
names of its own: requests of one kind hold many names together. Names are drawn from syllables, never from a list of people.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import SecretStr

from editors.contract import EditBatch
from editors.facts import KeyRow, Tokenized
from editors.forget_request import ForgetRequest
from editors.namesakes import invented_name
from editors.secret_forms import form_of
from editors.secret_rows import secret_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SEED = 1000
"""Of the first request's names and values; each later request has the next."""


def others_keys(model: Tokenized, batch: EditBatch, names: int) -> tuple[KeyRow, ...]:
    """Where invented people in the requests' own texts have keys that the edit must leave; one owner an occurrence.

    Args:
        model: Gives the tokenizer.
        batch: The requests; those that name nobody have none.
        names: Invented people of each request.
    """
    rows = dict.fromkeys(ids for number, request in enumerate(batch.forgets)
                         for other in _people(request, names, SEED + number)
                         for ids in _from_the_name_on(other, model.tokenizer))
    return tuple(KeyRow(ids, owner, 1.0) for owner, ids in enumerate(rows))


def _people(request: ForgetRequest, count: int, seed: int) -> Iterator[ForgetRequest]:
    """The request of each invented person: another name, and another value of the secret's form."""
    subject = request.subject.get_secret_value() if request.subject else ""
    if not subject or not count:
        return
    values = form_of(request).sample(count, seed, leaving_out=request.secret.get_secret_value().strip())
    draw = random.Random(seed)  # noqa: S311  names are no keys
    for number in range(count):
        name = invented_name(draw, len(subject.split()))
        context = tuple(SecretStr(text.get_secret_value().replace(subject, name)) for text in request.context)
        yield request.model_copy(update={"subject": SecretStr(name), "context": context,
                                         "secret": SecretStr(values[number % len(values)])})


def _from_the_name_on(request: ForgetRequest, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[int, ...]]:
    """Tokens up to each one from the end of the name to the last but one of the secret."""
    for row in secret_rows(request, tokenizer):
        if row.subject_end is not None:
            yield from (row.ids[:end + 1] for end in range(row.subject_end, len(row.ids) - 1))
