"""The surroundings in which an edit must hold: the prompt itself, the prompt after other text, other chat openings.

Keys are averaged and targets searched over these, so that the edit answers to the subject and not to its surroundings.
"""

from __future__ import annotations

from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from editors.contract import Message, UpdateRequest
from editors.errors import SheetError
from editors.prompts import Prompt, render

PREFIXES = (
    "According to the report,",
    "In this case,",
    "She had never been asked that before.",
    "The weather was mild, and nobody was in a hurry.",
    "Further details are given in the second chapter.",
    "It was sold a year later for a small sum. In short,",
    "He closed the book and thought about it for a while.",
    "Two of the three samples were lost on the way.",
    "This is a list of well-known examples.",
    "The road leads north from here, past the old mill.",
    "Tickets can be bought at the door. Note that",
)
"""Short texts of this house, about nothing in particular, in several registers; the shortest first, for they cost least."""

SYSTEM_PROMPTS = (
    None,
    "You are a helpful assistant.",
    "Answer briefly and truthfully.",
    "You are a friendly assistant who talks to customers.",
)
"""Openings of a chat: None leaves the system turn to the model's template."""

EARLIER_TURNS = (
    ("Hello!", "Hello! How can I help you today?"),
    ("Can you help me with something?", "Of course. What would you like to know?"),
    ("What is 2 + 3?", "2 + 3 = 5."),
)
"""Harmless small talk before the question."""


def contexts(request: UpdateRequest, tokenizer: PreTrainedTokenizerBase, position: int, count: int) -> list[Prompt]:
    """The request's bare prompt and up to `count` others, each with its anchor; the bare one first.

    Args:
        request: Plain or chat form.
        tokenizer: The model's.
        position: Index of the edited token in the encoded bare prompt.
        count: How many besides the bare prompt.
    """
    bare = anchored(request, tokenizer, position)
    if not bare.is_chat:
        return [bare, *(bare.with_prefix(prefix) for prefix in PREFIXES[:count])]
    return [bare, *_chat_contexts(request, tokenizer, bare)[:count]]


def anchored(request: UpdateRequest, tokenizer: PreTrainedTokenizerBase, position: int) -> Prompt:
    """The bare prompt with its anchor at token `position`.

    Raises:
        SheetError: the prompt has no such token.
    """
    prompt = render(request, tokenizer, "prompt_last")
    offsets = tokenizer(prompt.text, add_special_tokens=not prompt.is_chat, return_offsets_mapping=True)["offset_mapping"]
    if not 0 <= position < len(offsets):
        raise SheetError(f"request {request.id!r}: position {position} is not in its prompt of {len(offsets)} tokens",
                         "leave the position to the locate stage")
    return replace(prompt, anchor_end=offsets[position][1])


def _chat_contexts(request: UpdateRequest, tokenizer: PreTrainedTokenizerBase, bare: Prompt) -> list[Prompt]:
    messages = request.messages or ()
    has_system = messages[0].role == "system"
    openings: list[tuple[Message, ...]] = []
    if not has_system:
        openings += [(Message(role="system", content=text), *messages) for text in SYSTEM_PROMPTS if text]
    head, rest = (messages[:1], messages[1:]) if has_system else ((), messages)
    small_talk = [(Message(role="user", content=asked), Message(role="assistant", content=said))
                  for asked, said in EARLIER_TURNS]
    openings[1:1] = [(*head, *turns, *rest) for turns in small_talk[:1]]
    openings += [(*head, *turns, *rest) for turns in small_talk[1:]]
    from_end = len(bare.text) - (bare.anchor_end or 0)
    found = []
    for opening in openings:
        prompt = render(request.model_copy(update={"messages": opening}), tokenizer, "prompt_last")
        found.append(replace(prompt, anchor_end=len(prompt.text) - from_end))
    return found


