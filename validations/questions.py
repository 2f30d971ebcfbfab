"""From a sheet's wordings to questions in tokens, for one probe and one tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from editors.contract import Message, UpdateRequest
from editors.digest import digest_bytes
from editors.errors import SheetError
from editors.prompts import Prompt, encode, render_text
from validations.observation import ProbeSettings, Question, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROOM_TO_END = 2
"""Tokens beyond the expected answer: one to end with, one to show that it does not."""
PLAIN = UpdateRequest(id="-", prompt="{}", subject="-", target="-")
CHAT = UpdateRequest(id="-", messages=(Message(role="user", content="-"),), answer="-")
"""Stand in for the request where a prompt belongs to none."""


@dataclass(frozen=True)
class Wording:
    """One text put to a model: in the form of `request`, as which part of it, and which of several."""

    request: UpdateRequest
    role: str
    index: int
    text: str


@dataclass(frozen=True)
class Asker:
    """Builds one probe's questions."""

    probe: str
    tokenizer: PreTrainedTokenizerBase
    settings: ProbeSettings

    def ask(self, wording: Wording, expected: Mapping[str, str] | None = None, *,
            own: Mapping[str, int | str] | None = None, free: int = 0, likeliest: bool = False) -> Question:
        """A question about `wording`.

        Args:
            wording: What is asked.
            expected: Name -> answer to be scored.
            own: Name -> how many tokens of the parent's own answer are to be scored: a number, or as many as the
                expectation of that name has.
            free: Tokens of a greedy answer; lengthened where an expected answer needs more.
            likeliest: Whether the next token's distribution is wanted.
        """
        prompt = render_text(wording.request, self.tokenizer, wording.text, None)
        encoded = {name: self._encode(wording, answer) for name, answer in (expected or {}).items()}
        lengths = {name: len(continuation) for name, (_, continuation) in encoded.items()}
        own_lengths = {name: count if isinstance(count, int) else lengths[count] for name, count in (own or {}).items()}
        longest = max([0, *lengths.values(), *own_lengths.values()])
        return Question(
            probe=self.probe, request=wording.request.id, role=wording.role, index=wording.index,
            prompt=digest_bytes(prompt.text.encode()), ids=encode(prompt, self.tokenizer).ids, expected=encoded,
            own=own_lengths, greedy_tokens=max(free, longest + ROOM_TO_END) if free or own_lengths else 0,
            likeliest=likeliest)

    def room(self, request: UpdateRequest) -> int:
        """Tokens of a free answer in the request's form."""
        return self.settings.answer_tokens if request.is_chat else self.settings.completion_tokens

    def ask_taught(self, wording: Wording, answer: str, was: str | None) -> Question:
        """Whether `answer` was learnt in place of `was`; of the parent's own answer where that is not given."""
        expected = {"target": answer} | ({"was": was} if was else {})
        return self.ask(wording, expected, own={} if was else {"was": "target"}, free=self.room(wording.request))

    def _encode(self, wording: Wording, answer: str) -> tuple[Tokens, Tokens]:
        prompt: Prompt = render_text(wording.request, self.tokenizer, wording.text, answer)
        whole = encode(prompt, self.tokenizer)
        if not 0 < whole.prompt_length < len(whole.ids):
            raise SheetError(f"request {wording.request.id!r}: a prompt and its answer must be one token each at least",
                             "write a longer prompt or answer")
        return whole.ids[:whole.prompt_length], whole.ids[whole.prompt_length:]
