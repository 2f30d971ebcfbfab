"""From a request to tokens: the one place that fills templates, applies the chat template and finds positions.

A position is found from character offsets of the whole rendered text, so it is right with BOS tokens, with merges
across a boundary, with repeated subjects and with prefixes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from editors.contract import Message, UpdateRequest
from editors.errors import SheetError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Role = Literal["edit", "paraphrase", "neighbour", "implication"]
PositionRule = Literal["auto", "subject_last", "question_last", "prompt_last"]


@dataclass(frozen=True)
class Prompt:
    """One rendered prompt.

    `text` is what the model reads, `continuation` what it should say next (empty when the parent's answer is the
    expectation), `anchor_end` the character index in `text` just after the words whose last token is edited.
    """

    text: str
    continuation: str = ""
    anchor_end: int | None = None
    is_chat: bool = False

    def with_prefix(self, prefix: str) -> Prompt:
        """The same prompt after other text; chat prompts take no prefix."""
        if not prefix or self.is_chat:
            return self
        joined = f"{prefix} "
        anchor = None if self.anchor_end is None else self.anchor_end + len(joined)
        return replace(self, text=joined + self.text, anchor_end=anchor)


@dataclass(frozen=True)
class Encoded:
    """Token ids of prompt and continuation together. `ids[prompt_length:]` is the continuation."""

    ids: tuple[int, ...]
    prompt_length: int
    anchor: int
    """Index of the edited token; the prompt's last token where the prompt has no anchor."""


def render(request: UpdateRequest, tokenizer: PreTrainedTokenizerBase, position: PositionRule = "auto") -> Prompt:
    """The request's own prompt with its target and the position that `position` names.

    "auto" is the subject's last token, or the question's last token in a chat request without a subject.
    """
    prompt = render_text(request, tokenizer, request.question, request.target_text)
    if position == "prompt_last":
        return replace(prompt, anchor_end=len(prompt.text))
    question_start = prompt.text.rindex(request.question) if prompt.is_chat else 0
    if request.subject and position in ("auto", "subject_last"):
        return replace(prompt, anchor_end=question_start + _subject_end(request))
    if position == "subject_last":
        raise SheetError(f"request {request.id!r} has no subject, so it has no position `subject_last`",
                         "add `subject`, or use position: question_last")
    return replace(prompt, anchor_end=question_start + len(request.question.rstrip()))


def render_text(request: UpdateRequest, tokenizer: PreTrainedTokenizerBase, text: str, answer: str | None) -> Prompt:
    """Another wording in the request's form: plain text, or the last user turn of its chat."""
    if request.messages is None:
        return Prompt(text.rstrip(), f" {answer.strip()}" if answer else "")
    turns = [*request.messages[:-1], Message(role="user", content=text)]
    chat = [turn.model_dump() for turn in turns]
    rendered = _template(tokenizer, chat, opening=True)
    if not answer:
        return Prompt(rendered, is_chat=True)
    whole = _template(tokenizer, [*chat, {"role": "assistant", "content": answer.strip()}], opening=False)
    if not whole.startswith(rendered):
        return Prompt(rendered, answer.strip() + (tokenizer.eos_token or ""), is_chat=True)
    return Prompt(rendered, whole[len(rendered):].rstrip("\n"), is_chat=True)


def encode(prompt: Prompt, tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """Tokenise prompt and continuation in one go.

    A token belongs to the continuation when it begins at or after the prompt's end; a token that straddles the border
    belongs to the continuation too, so that the whole answer is always scored.
    """
    text = prompt.text + prompt.continuation
    encoded = tokenizer(text, add_special_tokens=not prompt.is_chat, return_offsets_mapping=True)
    ids, offsets = tuple(encoded["input_ids"]), encoded["offset_mapping"]
    end = len(prompt.text)
    special = [start == stop for start, stop in offsets]
    length = next((i for i, (_, stop) in enumerate(offsets) if stop > end and not special[i]), len(ids))
    anchor_end = end if prompt.anchor_end is None else prompt.anchor_end
    inside = [i for i, (start, _) in enumerate(offsets[:length]) if start < anchor_end and not special[i]]
    return Encoded(ids, length, inside[-1] if inside else max(length - 1, 0))


def _subject_end(request: UpdateRequest) -> int:
    subject = request.subject or ""
    if request.prompt is not None and "{}" in request.prompt:
        return request.prompt.index("{}") + len(subject)
    found = request.question.rfind(subject)
    if found < 0 or not subject:
        raise SheetError(f"request {request.id!r}: the subject {subject!r} is not in {request.question!r}",
                         "put `{}` in the prompt where the subject stands")
    return found + len(subject)


def _template(tokenizer: PreTrainedTokenizerBase, chat: list[dict[str, str]], *, opening: bool) -> str:
    if not tokenizer.chat_template:
        raise SheetError("this model's tokenizer has no chat template, so chat requests cannot be built",
                         "use the form `prompt`, `subject`, `target`")
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=opening))
