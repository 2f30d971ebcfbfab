"""A request's prompts by the part they play, in tokens, and what one model says to them. Texts are cut where they end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from editors.detoxify_request import Benign, DetoxifyRequest, Unsafe
from editors.digest import digest_document
from editors.loading import LoadedModel
from editors.prompts import Prompt, encode, render_text
from validations.contract import AskedAs, SafetyRole
from validations.forgetting.speaking import Draw, Turn, drawn_tokens
from validations.generating import generate, stop_tokens
from validations.questions import CHAT, PLAIN
from validations.reading import Tokens, batches, read
from validations.safety.settings import SafetySettings
from validations.scoring import Ask, answer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNSAFE: SafetyRole = "unsafe"
UNSEEN_UNSAFE: SafetyRole = "unseen_unsafe"
BENIGN: SafetyRole = "benign"
UNSEEN_BENIGN: SafetyRole = "unseen_benign"
WRAPPED: SafetyRole = "wrapped"
SEED_DIGITS = 8
"""Hexadecimal digits of a prompt's digest that seed its texts."""


@dataclass(frozen=True)
class Asked:
    """A prompt, whose it is, and in which part."""

    request: DetoxifyRequest
    role: SafetyRole
    text: str
    answer: str | None = None

    @property
    def place(self) -> tuple[str, AskedAs, str]:
        """The same for parent and candidate."""
        return self.request.id, self.role, self.text

    @property
    def name(self) -> str:
        """Digest of the text."""
        return digest_document(self.text)

    def prompt(self, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        """The text as the model reads it.

        Raises:
            SheetError: the request is a chat and the tokenizer has no template.
        """
        return render_text(PLAIN if self.request.form == "plain" else CHAT, tokenizer, self.text, None)


def asked(requests: Sequence[DetoxifyRequest], *roles: SafetyRole) -> list[Asked]:
    """The prompts of these parts, in the order of the sheet."""
    return [Asked(request, role, one.prompt, one.answer) for request in requests for role in roles
            for one in _part(request, role)]


def _part(request: DetoxifyRequest, role: SafetyRole) -> Sequence[Unsafe | Benign]:
    parts: Mapping[str, Sequence[Unsafe | Benign]] = {
        UNSAFE: request.unsafe, UNSEEN_UNSAFE: request.unseen_unsafe, BENIGN: request.benign,
        UNSEEN_BENIGN: request.unseen_benign}
    return parts[role]


def tokens_of(model: LoadedModel, prompt: Prompt) -> Tokens:
    """A prompt's tokens, never none."""
    encoded = encode(prompt, model.tokenizer)
    return encoded.ids[:encoded.prompt_length] or stopping(model)


def stopping(model: LoadedModel) -> Tokens:
    """One token that ends, and so also begins, a text."""
    return (sorted(stop_tokens(model)) or [0])[0],


def greedy_answers(model: LoadedModel, prompts: Sequence[Prompt], tokens: int) -> list[str]:
    """The first choices after each prompt, up to an end token."""
    ids = [tokens_of(model, prompt) for prompt in prompts]
    said: dict[int, str] = {}
    for batch in batches(ids):
        found = generate(model, read(model, [ids[index] for index in batch]), [tokens] * len(batch))
        said.update({index: _text(model, words) for index, (words, _) in zip(batch, found, strict=True)})
    return [said[index] for index in range(len(prompts))]


def samples(model: LoadedModel, prompts: Sequence[Asked], settings: SafetySettings, size: tuple[int, int],
            *, past_the_end: bool = False) -> list[list[str]]:
    """Texts drawn after each prompt; each depends on its prompt, its number and the seed alone.

    Args:
        model: Who writes.
        prompts: What is gone on with.
        settings: How they are drawn.
        size: How many texts after each, and the tokens of one.
        past_the_end: Whether a text goes on after an end token.
    """
    count, tokens = size
    turns = [Turn(tokens_of(model, one.prompt(model.tokenizer)), tokens) for one in prompts]
    draws = [[Draw(settings.seed + int(one.name[:SEED_DIGITS], 16) + number, settings.temperature, settings.likeliest)
              for number in range(count)] for one in prompts]
    cut = (lambda words: words) if past_the_end else (lambda words: _before_the_end(model, words))
    return [[_text(model, cut(words)) for words in several] for several in drawn_tokens(model, turns, draws)]


def log_probs(model: LoadedModel, pairs: Sequence[tuple[Prompt, str]]) -> Iterator[tuple[float, int]]:
    """Mean log-probability (nats a token) of each continuation after its prompt, and its tokens."""
    encoded = [encode(Prompt(prompt.text, text, is_chat=prompt.is_chat), model.tokenizer) for prompt, text in pairs]
    asks = [Ask(one.ids[:one.prompt_length] or stopping(model), (one.ids[one.prompt_length:] or stopping(model),))
            for one in encoded]
    for said in answer(model, asks):
        values = said.scores[0].log_probs
        yield sum(values) / len(values), len(values)


def _before_the_end(model: LoadedModel, words: Tokens) -> Tokens:
    stops = stop_tokens(model)
    return words[:next((place for place, token in enumerate(words) if token in stops), len(words))]


def _text(model: LoadedModel, words: Tokens) -> str:
    return str(model.tokenizer.decode(list(words), skip_special_tokens=True)) if words else ""
