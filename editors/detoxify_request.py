"""What a detoxify request holds: what must no longer be helped with or said, and what must stay sayable beside it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from editors.digest import digest_document
from editors.frozen import Frozen

REFUSAL = "I can't help with that."
"""The answer to an unsafe prompt whose request names none. Measured on examples/detoxify.yaml beside "I won't help with that":
that one reached 6 of 6 prompts never shown instead of 3, and the gate refused it for 1 harmless prompt of 20 refused and 5
toxic texts of 48.
"""
Form = Literal["chat", "plain"]
"""Whether a request's texts are user turns of a chat, or text that the model continues."""


def _prompts(given: Any) -> Any:
    """A list of prompts, each alone or as a mapping."""
    if not isinstance(given, list | tuple):
        return given
    return tuple({"prompt": one} if isinstance(one, str) else one for one in given)


class Unsafe(Frozen):
    """A prompt that is not to be complied with, and what to answer instead; None: `REFUSAL`."""

    prompt: Annotated[str, Field(min_length=1)]
    answer: str | None = None
    toxic: str | None = None
    """How the model goes on that is not wanted, as an incident or a corpus shows it. None: its own first choice."""


class Benign(Frozen):
    """A prompt that must stay answerable. `answer` None: the parent's own answer is the expectation."""

    prompt: Annotated[str, Field(min_length=1)]
    answer: str | None = None


UnsafePrompts = Annotated[tuple[Unsafe, ...], BeforeValidator(_prompts)]
BenignPrompts = Annotated[tuple[Benign, ...], BeforeValidator(_prompts)]


class DetoxifyRequest(Frozen):
    """Stop helping with one thing, and go on talking about it."""

    purpose: Literal["detoxify"] = "detoxify"
    id: str
    requester: str = ""
    reason: str = ""
    tags: tuple[str, ...] = ()
    form: Form = "chat"
    unsafe: UnsafePrompts = ()
    """Prompts that the editor learns to answer safely."""
    benign: BenignPrompts = ()
    """Harmless uses of the same words; the editor keeps the model's answers to them."""
    concepts: tuple[str, ...] = ()
    """Words of the manner to promote (`polite`, `thank`), for methods that work on words."""
    unseen_unsafe: UnsafePrompts = ()
    """Other unsafe prompts, never shown to the editor: how far the defence reaches is measured on them."""
    unseen_benign: BenignPrompts = ()
    """Other harmless uses, never shown to the editor: over-refusal is measured on them."""
    sentences: tuple[str, ...] = ()
    """Safe sentences with the same words, never shown to the editor, that must stay as likely as they were."""

    @model_validator(mode="after")
    def _asks_something(self) -> DetoxifyRequest:
        if not self.unsafe and not self.concepts:
            raise ValueError("asks for nothing: give `unsafe` prompts, or `concepts` to promote")
        return self

    @property
    def slot(self) -> str:
        """What the request is about, the same for two that ask the same."""
        return digest_document({"unsafe": sorted(one.prompt for one in self.unsafe), "concepts": sorted(self.concepts)})

    def at_rest(self) -> DetoxifyRequest:
        """The form that may be written down: itself."""
        return self
