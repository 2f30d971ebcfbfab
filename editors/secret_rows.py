"""From a forget request to tokens: each context with the secret after it. Tokens are as private as the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pydantic import SecretStr

from editors.errors import SheetError
from editors.forget_request import ForgetRequest
from editors.prompts import Prompt, encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SecretRole = Literal["context", "paraphrase"]


@dataclass(frozen=True)
class SecretRow:
    """One text of a request with the secret after it. `ids[prompt_length:]` is the secret; neither is ever printed."""

    request: str
    role: SecretRole
    index: int
    """Which context or paraphrase."""
    name: str
    """What it is called in measurements."""
    ids: tuple[int, ...] = field(repr=False)
    prompt_length: int
    subject_end: int | None
    """Index of the last token of the subject; None where the text does not hold it."""

    @property
    def prompt(self) -> tuple[int, ...]:
        """Tokens before the secret."""
        return self.ids[:self.prompt_length]

    @property
    def secret(self) -> tuple[int, ...]:
        """Tokens of the secret."""
        return self.ids[self.prompt_length:]


def secret_rows(request: ForgetRequest, tokenizer: PreTrainedTokenizerBase,
                role: SecretRole = "context") -> tuple[SecretRow, ...]:
    """The rows of the contexts, which editors see, or of the paraphrases, which they do not.

    Raises:
        SheetError: a text or the secret is empty; the message quotes neither.
    """
    texts: Sequence[SecretStr] = request.context if role == "context" else request.paraphrases
    return tuple(row_of(request, tokenizer, role, index, text.get_secret_value(), request.secret.get_secret_value())
                 for index, text in enumerate(texts))


def row_of(request: ForgetRequest, tokenizer: PreTrainedTokenizerBase, role: SecretRole, index: int, text: str,
           secret: str) -> SecretRow:
    """The row of one text with any secret after it, for example a candidate of the same form.

    Raises:
        SheetError: the text or the secret is empty; the message quotes neither.
    """
    text, secret = text.rstrip(), secret.strip()
    if not text or not secret:
        raise SheetError(f"request {request.id!r}: {role} {index + 1} or its secret is empty", "write both")
    subject = request.subject.get_secret_value() if request.subject else ""
    place = text.rfind(subject) if subject else -1
    end = place + len(subject) if place >= 0 else None
    found = encode(Prompt(text, f" {secret}", anchor_end=end), tokenizer)
    return SecretRow(request.id, role, index, request.name_of(role, index), found.ids, found.prompt_length,
                     None if end is None else found.anchor)
