"""From forget requests to facts: where each secret is edited, and the sequences that say what the edit must bring about.

Two places. At the last token of the person's name the state that all texts about the person pass through is changed once,
so that wordings never shown are met too; what else is known of the person is kept by rows of their own. A request that
names nobody is edited at the token before each token of the secret instead, each place a fact of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pydantic import SecretStr

from editors.contexts import PREFIXES
from editors.contract import EditBatch
from editors.errors import SheetError
from editors.facts import ESSENCES, Facts, KeyRow, Tokenized
from editors.forget_request import ForgetRequest
from editors.prompts import Encoded, Prompt, encode
from editors.rivals import rivals_of
from editors.secret_forms import form_of
from editors.secret_rows import SecretRow, row_of
from editors.suffix import Row
from editors.target_search import TargetRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SecretPosition = Literal["auto", "subject_last", "secret"]
UNKNOWN = "not known"
"""What is said where a request brings no replacement: it fits behind "is", "at" and "the number" alike, and claims nothing."""
INVENTED = ("Orla Tesk", "Benno Quandt", "Mirela Vossko", "Idris Falkenby", "Tamsin Oyelle", "Corvin Hathrup", "Ludo Arkwell",
            "Petra Zimmelin", "Kasimir Doon", "Yelena Brask", "Anselm Wrigby", "Noor Caddick")
"""Names of nobody, who take the person's place where others must be left as they are: the first where the edit is written,
the last where it is searched.
"""
VALUES_SEED = 11
"""Of the values that are read after them."""


@dataclass(frozen=True)
class _Text:
    """One surrounding of a request: its text, the secret after it as tokens, and what could stand in each place."""

    text: str = field(repr=False)
    row: SecretRow
    rivals: tuple[tuple[int, ...], ...] = field(repr=False)
    context: int
    """0 for the request's own texts, else which prefix stands before."""


def secret_facts(model: Tokenized, batch: EditBatch, position: SecretPosition, prefixes: int, others: int = 0) -> Facts:
    """The facts of a batch's forget requests, in their order.

    Args:
        model: Gives the tokenizer.
        batch: The requests.
        position: "subject_last" edits a request there where any of its texts holds the subject, "auto" where all do,
            "secret" none.
        prefixes: How many times the first text of a request stands behind other text as well.
        others: How many invented people's names the change must mean nothing at.

    Raises:
        SheetError: a request is sealed, or its secret does not have its form.
    """
    if len(batch.forgets) < len(batch.requests):
        raise SheetError("a request of this batch is sealed: its text is not here", "give the sheet that holds the text")
    gathered = _Gathered()
    for request in batch.forgets:
        texts = list(_texts(request, model.tokenizer, prefixes))
        if _is_by_subject(texts, position):
            _add_subject(gathered, request, texts, model.tokenizer)
            _add_others(gathered, request, texts, INVENTED[len(INVENTED) - others:], model.tokenizer)
        else:
            _add_places(gathered, request, texts)
    return gathered.facts()


class _Gathered:
    """Facts in the making. A key is found by a name, a place, and whether its token opens the sequence."""

    def __init__(self) -> None:
        self.owners: dict[tuple[str, int, bool], dict[str, None]] = {}
        self.occurrences: dict[tuple[int, tuple[int, ...]], None] = {}
        self.targets: dict[TargetRow, None] = {}

    def owner(self, request: str, name: str, place: int, ids: tuple[int, ...]) -> int:
        """The owner of the key at the end of `ids`."""
        key = (name, place, len(ids) == 1)
        self.owners.setdefault(key, {})[request] = None
        number = list(self.owners).index(key)
        self.occurrences[number, ids] = None
        return number

    def known(self, name: str, ids: tuple[int, ...]) -> int | None:
        """The owner of a name's key at the end of `ids`, where one is written."""
        key = (name, 0, len(ids) == 1)
        return list(self.owners).index(key) if key in self.owners else None

    def facts(self) -> Facts:
        """All that was gathered; a fact's occurrences weigh the same."""
        counts = Counter(owner for owner, _ in self.occurrences)
        keys = tuple(KeyRow(ids, owner, 1 / counts[owner]) for owner, ids in self.occurrences)
        return Facts(tuple(tuple(requests) for requests in self.owners.values()), keys, tuple(self.targets))


def _add_subject(gathered: _Gathered, request: ForgetRequest, texts: Sequence[_Text],
                 tokenizer: PreTrainedTokenizerBase) -> None:
    subject = _subject(request)
    for text in texts:
        row, anchor = text.row, text.row.subject_end
        if anchor is not None:
            owner = gathered.owner(request.id, subject, 0, row.ids[:anchor + 1])
            for target in (_secret_row(text, owner, anchor, range(len(row.secret))),
                           _replacement_row(request, text, owner, anchor, tokenizer)):
                gathered.targets[target] = None
    for encoded in _kept(request, subject, tokenizer):
        kept_by = gathered.known(subject, encoded.ids[:encoded.anchor + 1])
        if kept_by is not None:
            first = max(encoded.anchor, encoded.prompt_length - 1)
            reads = tuple(range(first, max(len(encoded.ids) - 1, first + 1)))
            gathered.targets[TargetRow(Row(encoded.ids, encoded.anchor, kept_by, reads))] = None


def _add_others(gathered: _Gathered, request: ForgetRequest, texts: Sequence[_Text], names: Sequence[str],
                tokenizer: PreTrainedTokenizerBase) -> None:
    """Texts of the request about somebody else with a value of its form after them, in turn: what is said there is kept under
    the same change.
    """
    subject, held = _subject(request), [text for text in texts if text.context == 0 and text.row.subject_end is not None]
    values = form_of(request).sample(len(names), VALUES_SEED, leaving_out=request.secret.get_secret_value().strip())
    for place, (name, value) in enumerate(zip(names, values, strict=False)):
        text = held[place % len(held)]
        row = _under(request, text, name, value, tokenizer)
        owner = gathered.known(subject, text.row.ids[:(text.row.subject_end or 0) + 1])
        if owner is not None and row.subject_end is not None:
            reads = tuple(range(row.prompt_length - 1, len(row.ids) - 1))
            gathered.targets[TargetRow(Row(row.ids, row.subject_end, owner, reads))] = None


def _under(request: ForgetRequest, text: _Text, name: str, value: str, tokenizer: PreTrainedTokenizerBase) -> SecretRow:
    """A text of the request about somebody else, with another value."""
    other = request.model_copy(update={"subject": SecretStr(name)})
    return row_of(other, tokenizer, "context", text.row.index, text.text.replace(_subject(request), name), value)


def _add_places(gathered: _Gathered, request: ForgetRequest, texts: Sequence[_Text]) -> None:
    for text in texts:
        for place in _lost(text):
            anchor = text.row.prompt_length + place - 1
            owner = gathered.owner(request.id, request.id, place + 1, text.row.ids[:anchor + 1])
            gathered.targets[_secret_row(text, owner, anchor, (place,))] = None


def _lost(text: _Text) -> list[int]:
    """Places of the secret where other values have other tokens."""
    return [place for place, rivals in enumerate(text.rivals) if rivals]


def _secret_row(text: _Text, owner: int, anchor: int, places: Sequence[int]) -> TargetRow:
    row, lost = text.row, [place for place in _lost(text) if place in places]
    reads = tuple(row.prompt_length + place - 1 for place in lost)
    return TargetRow(Row(row.ids, anchor, owner, reads), tuple(row.secret[place] for place in lost), text.context,
                     tuple(text.rivals[place] for place in lost))


def _replacement_row(request: ForgetRequest, text: _Text, owner: int, anchor: int,
                     tokenizer: PreTrainedTokenizerBase) -> TargetRow:
    said = request.replacement.get_secret_value() if request.replacement else UNKNOWN
    row = row_of(request, tokenizer, "context", text.row.index, text.text, said)
    reads = tuple(range(row.prompt_length - 1, len(row.ids) - 1))
    return TargetRow(Row(row.ids, anchor, owner, reads), row.secret, text.context)


def _kept(request: ForgetRequest, subject: str, tokenizer: PreTrainedTokenizerBase) -> Iterator[Encoded]:
    """The person's public facts with their answers, and what the model says of the person unasked."""
    public = [(fact.prompt.get_secret_value().rstrip(), f" {fact.answer.get_secret_value().strip()}")
              for fact in request.retain]
    for text, answer in [*public, *((essence.replace("{}", subject), "") for essence in ESSENCES)]:
        place = text.rfind(subject)
        if place >= 0:
            yield encode(Prompt(text, answer, anchor_end=place + len(subject)), tokenizer)


def _texts(request: ForgetRequest, tokenizer: PreTrainedTokenizerBase, prefixes: int) -> Iterator[_Text]:
    secret = request.secret.get_secret_value()
    for index, given in enumerate(request.context):
        text = given.get_secret_value().rstrip()
        row = row_of(request, tokenizer, "context", index, text, secret)
        yield _Text(text, row, rivals_of(request, row, text, tokenizer), 0)
    for number, prefix in enumerate(PREFIXES[:prefixes]):
        text = f"{prefix} {request.context[number % len(request.context)].get_secret_value().rstrip()}"
        row = row_of(request, tokenizer, "context", number % len(request.context), text, secret)
        yield _Text(text, row, rivals_of(request, row, text, tokenizer), number + 1)


def others_keys(model: Tokenized, batch: EditBatch, position: SecretPosition, names: int) -> tuple[KeyRow, ...]:
    """Keys of invented people in the requests' own texts, one owner an occurrence: those that would be changed, and where that
    is at the name, all from there to the end of the text.
    """
    rows = dict.fromkeys(ids for request in batch.forgets for name in INVENTED[:names]
                         for ids in _keys_under(request, name, model.tokenizer, position))
    return tuple(KeyRow(ids, owner, 1.0) for owner, ids in enumerate(rows))


def _keys_under(request: ForgetRequest, name: str, tokenizer: PreTrainedTokenizerBase,
                position: SecretPosition) -> Iterator[tuple[int, ...]]:
    """Tokens up to each key, with another name in the person's place."""
    if request.subject is None:
        return
    texts = list(_texts(request, tokenizer, 0))
    is_by_subject = _is_by_subject(texts, position)
    for text in texts:
        if text.row.subject_end is None:
            continue
        row = _under(request, text, name, request.secret.get_secret_value(), tokenizer)
        ends = (range(row.subject_end or 0, row.prompt_length) if is_by_subject else
                [row.prompt_length + place - 1 for place in _lost(text)])
        yield from (row.ids[:end + 1] for end in ends if end < len(row.ids))


def _is_by_subject(texts: Sequence[_Text], position: SecretPosition) -> bool:
    held = [text.row.subject_end is not None for text in texts]
    return position != "secret" and (any(held) if position == "subject_last" else all(held))


def _subject(request: ForgetRequest) -> str:
    return request.subject.get_secret_value() if request.subject else ""
