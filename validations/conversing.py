"""Talking to a model: turns in its chat template, or texts that it goes on with, read and answered token by token.

What was read stays in the cache: of the next turn only what is new is read, as long as the template leaves what was said as
it was. Where it does not, the conversation is read again from its beginning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from editors.cached import forward
from editors.errors import ConfigError, IntegrityError
from editors.loading import LoadedModel
from editors.options import check_ranges
from editors.overlay import laid_over
from editors.prompts import Prompt, encode
from validations.generating import stop_tokens
from validations.reading import Tokens

Form = Literal["chat", "plain"]


@dataclass(frozen=True)
class Manner:
    """How answers are chosen."""

    temperature: float = 0.0
    """0: the likeliest token each time. 1: drawn as the model weighs them. In [0, 5]; beyond, every model babbles."""
    max_tokens: int = 256
    """An answer is cut after this many. In [1, 32768]; the default is a long paragraph."""
    seed: int = 0
    """Of the draws; with temperature 0 nothing is drawn. In [0, 2147483647]."""

    def __post_init__(self) -> None:
        check_ranges(self, temperature="[0, 5]", max_tokens="[1, 32768]", seed="[0, 2147483647]")


def form_of(model: LoadedModel, plain: bool) -> Form:
    """How to talk to a model: in its template where it has one and plain text is not asked for."""
    return "chat" if model.tokenizer.chat_template and not plain else "plain"


@dataclass
class Conversation:
    """One version's side of a talk.

    Several may share one model, each with its own overlay: it lies over the weights for one token at a time only, so their
    answers can be read in turns.
    """

    model: LoadedModel
    overlay: Mapping[str, torch.Tensor]
    """Parameter name -> what this version has in its place."""
    form: Form
    """"plain": every line is a text of its own, as sheets ask with `prompt`."""
    manner: Manner = Manner()
    _turns: list[dict[str, str]] = field(default_factory=list)
    _read: Tokens = ()
    """The tokens in the cache."""
    _cache: Any = None
    _draws: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._draws = torch.Generator().manual_seed(self.manner.seed)

    def reset(self) -> None:
        """Forget everything that was said."""
        self._turns.clear()
        self._read, self._cache = (), None
        self._draws.manual_seed(self.manner.seed)

    def answer(self, text: str) -> Iterator[str]:
        """What the model says to `text`, as far as it has come, token by token; kept as said when it is through.

        Raises:
            ConfigError: the conversation is longer than the model reads.
            IntegrityError: the model's numbers are no numbers.
        """
        asked = {"role": "user", "content": text}
        ids = self._ids(asked)
        limit = min(self.manner.max_tokens, self._room(len(ids)))
        stops, shown, end = stop_tokens(self.model), "", len(ids)
        while len(ids) < end + limit:
            token = self._choose(self._logits(ids))
            if token in stops:
                break
            ids = (*ids, token)
            shown = str(self.model.tokenizer.decode(list(ids[end:]), skip_special_tokens=True))
            # a letter may take several tokens
            yield shown.removesuffix("\N{REPLACEMENT CHARACTER}")
        if self.form == "chat":
            self._turns += [asked, {"role": "assistant", "content": shown}]

    def _ids(self, asked: dict[str, str]) -> Tokens:
        if self.form == "plain":
            return encode(Prompt(asked["content"].rstrip()), self.model.tokenizer).ids
        chat = [*self._turns, asked]
        text = str(self.model.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
        return encode(Prompt(text, is_chat=True), self.model.tokenizer).ids

    def _room(self, length: int) -> int:
        reads = getattr(self.model.model.config, "max_position_embeddings", None)
        if reads is None:
            return self.manner.max_tokens
        if length >= reads:
            raise ConfigError(f"the conversation has {length} tokens, and the model reads {reads}",
                              "begin anew with /reset, or ask for less")
        return int(reads) - length

    @torch.inference_mode()
    def _logits(self, ids: Tokens) -> torch.Tensor:
        """(V,) float32, after the last of the tokens."""
        known = len(self._read)
        # cut short or told otherwise by the template: a cache cannot be relied on to shrink
        if self._cache is None or ids[:known] != self._read or known >= len(ids):
            known, self._cache = 0, None
        # whoever interrupts here leaves no cache that is half of something
        cache, self._cache = self._cache, None
        device = self.model.device
        new = torch.tensor([ids[known:]], device=device)
        mask = torch.ones(1, len(ids), dtype=torch.long, device=device)
        positions = torch.arange(known, len(ids), device=device)[None]
        with laid_over(self.model.model, self.overlay):
            logits, cache = forward(self.model, new, mask, positions, cache, last_only=True)
        self._read, self._cache = ids, cache
        return logits[0, -1]

    def _choose(self, logits: torch.Tensor) -> int:
        if logits.isnan().any():
            raise IntegrityError("the model's numbers are no numbers: this version is broken", "suture show VERSION")
        if self.manner.temperature == 0:
            return int(logits.argmax())
        shares = (logits.double() / self.manner.temperature).softmax(-1).cpu()
        return int(torch.multinomial(shares, 1, generator=self._draws))
