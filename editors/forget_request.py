"""What a forget request holds, and the form of it that may be written down.

The request is itself personal data. Every private text is a `SecretStr`, so nothing prints it; written as JSON, a request
is its seal (a keyed digest) and its counts, and an unsealed one cannot be written at all. The text lives in the sheet
that the user owns and in memory.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, SecretStr, Strict, model_serializer

from editors.digest import canonical_json, keyed_digest

PIECE = 8
"""Characters of a secret or a name that count as a piece of it."""
SHORT_SEAL = 16
"""Hexadecimal digits of a seal that name a request's prompts in measurements."""


class Private(BaseModel):
    """Immutable, strict about unknown keys, and silent about values in its errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _listed(given: Any) -> Any:
    if isinstance(given, str):
        return (given,)
    return tuple(given) if isinstance(given, list) else given


Texts = Annotated[tuple[Annotated[SecretStr, Strict(False)], ...], BeforeValidator(_listed)]
"""Private texts; a sheet may give one alone."""


class Retained(Private):
    """A public fact about the same person that must stay: a prompt and its answer."""

    prompt: SecretStr
    answer: SecretStr


class ForgetRequest(Private):
    """Make the model lose one secret."""

    purpose: Literal["forget"] = "forget"
    id: str
    """Names the request everywhere; must not name the person."""
    requester: str = ""
    reason: str = ""
    tags: tuple[str, ...] = ()
    context: Annotated[Texts, Field(min_length=1)]
    """Texts as they stand before the secret; the editor sees these."""
    secret: SecretStr
    """What must not be said, as it follows each context after a blank."""
    subject: SecretStr | None = None
    """The person's name as it stands in the contexts."""
    form: SecretStr | None = None
    """The secret's format: `#` any digit, `@` any lower-case letter, everything else as it stands. None: every digit of
    the secret is free, and where it has none every letter."""
    replacement: SecretStr | None = None
    """What to say instead. None: that it is not known."""
    paraphrases: Texts = ()
    """Other texts before the secret, never shown to the editor."""
    retain: tuple[Retained, ...] = ()
    """The person's public facts, which must stay."""
    _seal: str | None = PrivateAttr(default=None)

    @property
    def seal(self) -> str:
        """Keyed digest of every private text of the request, 64 hexadecimal characters.

        Raises:
            ValueError: it was not sealed; this is a bug, not a user's doing.
        """
        if self._seal is None:
            raise ValueError(f"request {self.id!r} was not sealed: call `sealed` where the batch is made")
        return self._seal

    @property
    def slot(self) -> str:
        """What the request is about, the same for two that ask the same."""
        return self.seal

    def sealed(self, key: bytes) -> ForgetRequest:
        """The same request under a seal made with the key (HMAC-SHA-256)."""
        content = canonical_json({
            "context": _open(self.context), "secret": self.secret.get_secret_value(), "subject": _open_one(self.subject),
            "form": _open_one(self.form), "replacement": _open_one(self.replacement), "paraphrases": _open(self.paraphrases),
            "retain": [[fact.prompt.get_secret_value(), fact.answer.get_secret_value()] for fact in self.retain]})
        copy = self.model_copy()
        copy._seal = keyed_digest(key, content)
        return copy

    def at_rest(self) -> SealedForget:
        """The form that may be written down."""
        return SealedForget(id=self.id, requester=self.requester, reason=self.reason, tags=self.tags, seal=self.seal,
                            contexts=len(self.context), paraphrases=len(self.paraphrases), retained=len(self.retain))

    def name_of(self, role: str, index: int) -> str:
        """What a prompt of this request is called in measurements, in place of a digest of its text."""
        return f"{self.seal[:SHORT_SEAL]}/{role}/{index}"

    def is_told_by(self, text: str) -> bool:
        """Whether a text holds a piece of the secret or of the person's name."""
        known = [private.get_secret_value().strip() for private in (self.secret, self.subject) if private]
        return any(words[start:start + PIECE].casefold() in text.casefold()
                   for words in known if words for start in range(max(len(words) - PIECE, 0) + 1))

    @model_serializer(mode="plain")
    def _serialised(self) -> dict[str, Any]:
        return self.at_rest().model_dump(mode="json")


class SealedForget(Private):
    """A forget request as it is kept: who asked, under which seal, and how much there was."""

    purpose: Literal["forget"] = "forget"
    id: str
    requester: str = ""
    reason: str = ""
    tags: tuple[str, ...] = ()
    seal: str
    contexts: int
    paraphrases: int
    retained: int

    @property
    def slot(self) -> str:
        """The same for two requests that ask the same."""
        return self.seal

    def at_rest(self) -> SealedForget:
        """Itself."""
        return self


def _open(texts: tuple[SecretStr, ...]) -> list[str]:
    return [text.get_secret_value() for text in texts]


def _open_one(text: SecretStr | None) -> str | None:
    return None if text is None else text.get_secret_value()
