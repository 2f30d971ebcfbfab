"""From requests to detoxify to what closed-form editors read: safe answers to learn, and keys whose answers must stay."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from editors.contract import EditBatch, Message, UpdateRequest
from editors.detoxify_request import REFUSAL, Benign, DetoxifyRequest, Form, Unsafe
from editors.errors import SheetError
from editors.facts import KeyRow, Tokenized, ordinary_keys
from editors.prompts import encode, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def safe_answers(batch: EditBatch) -> EditBatch:
    """The batch as updates: every unsafe prompt with the answer to give instead.

    Raises:
        SheetError: a request has no unsafe prompts.
    """
    for request in batch.detoxifies:
        if not request.unsafe:
            raise SheetError(f"request {request.id!r} has no unsafe prompts", "add `unsafe`, or use method: promote_values")
    asked = tuple(question_of(request, f"{request.id}/{place}", one.prompt, one.answer or REFUSAL)
                  for request in batch.detoxifies for place, one in enumerate(request.unsafe))
    return batch.model_copy(update={"requests": asked})


def question_of(request: DetoxifyRequest, name: str, prompt: str, answer: str) -> UpdateRequest:
    """One prompt of a request, in its form, as an update named `name`."""
    if request.form == "chat":
        return UpdateRequest(id=name, messages=(Message(role="user", content=prompt),), answer=answer)
    return UpdateRequest(id=name, prompt=prompt.replace("{}", ""), subject="", target=answer)


def harmless_keys(model: Tokenized, batch: EditBatch) -> tuple[KeyRow, ...]:
    """Where harmless prompts of the batch have the key that an edit at the prompt's end would change, one owner a prompt;
    with a request in the chat form, ordinary chat questions as well.
    """
    rows = [_key(model, request, one.prompt) for request in batch.detoxifies for one in request.benign]
    forms: set[Form] = {request.form for request in batch.detoxifies}
    ordinary = ordinary_keys(model, "prompt_last") if "chat" in forms else ()
    return tuple(replace(row, owner=owner) for owner, row in enumerate((*rows, *ordinary)))


def longest(request: DetoxifyRequest, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of the longest of its prompts with its answer, those never shown to the editor included.

    Raises:
        SheetError: it is a chat, and the tokenizer has no chat template.
    """
    prompts: tuple[Unsafe | Benign, ...] = (*request.unsafe, *request.unseen_unsafe, *request.benign, *request.unseen_benign)
    asked = (question_of(request, request.id, one.prompt, one.answer or REFUSAL) for one in prompts)
    return max((len(encode(render(one, tokenizer, "prompt_last"), tokenizer).ids) for one in asked), default=0)


def _key(model: Tokenized, request: DetoxifyRequest, prompt: str) -> KeyRow:
    asked = question_of(request, request.id, prompt, REFUSAL)
    encoded = encode(render(asked, model.tokenizer, "prompt_last"), model.tokenizer)
    return KeyRow(encoded.ids[:encoded.anchor + 1], 0, 1.0)
