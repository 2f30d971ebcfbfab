"""What one model was asked and what it said: numbers and texts, under the model's digest; no torch, stored as JSON.

A baseline is observed once and kept; a candidate is observed later, alone in memory, with the baseline at hand, because
the parent's own answers are expectations wherever the sheet gives none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pydantic import Field

from editors.contract import Frozen, UpdateRequest
from editors.digest import digest_document
from validations.contract import Recorded

Tokens = tuple[int, ...]
Pairs = Sequence[tuple["Reply", "Reply"]]
"""The parent's and the candidate's reply to the same question."""

PROTOCOL = "observation-2"
"""Renamed whenever a change makes stored observations incomparable."""
HELD_OUT = Path(__file__).with_name("held_out")


class ProbeSettings(Frozen):
    """How much is asked. The defaults keep a sheet of ten requests under a minute on two cores."""

    answer_tokens: int = Field(default=24, ge=1)
    """Upper limit of a greedy answer in a chat; the expected answer and two more are always allowed."""
    completion_tokens: int = Field(default=12, ge=1)
    """The same for plain prompts, where the answer comes at once."""
    same_tokens: int = Field(default=12, ge=1)
    """Length of the parent's answer within which the candidate's must be the same."""
    fluency_tokens: int = Field(default=48, ge=8)
    """Length of the free text whose n-grams are counted."""
    likeliest: int = Field(default=512, ge=1)
    """Tokens of the parent's distribution kept for KL; the others count as one."""
    window_tokens: int = Field(default=512, ge=4)
    """Longest context in perplexity."""
    held_out_tokens: int = Field(default=2048, ge=2)
    """Tokens of held-out text that are read, from as many texts as give passages of some length."""
    held_out: tuple[str, ...] = ()
    """Texts for perplexity; empty: those that come with the house."""


@dataclass(frozen=True)
class Scope:
    """What is measured: the batch's requests, the line's earlier ones that still hold, and how much is asked."""

    requests: tuple[UpdateRequest, ...]
    history: tuple[UpdateRequest, ...] = ()
    superseded: tuple[UpdateRequest, ...] = ()
    settings: ProbeSettings = field(default_factory=ProbeSettings)

    @staticmethod
    def of(requests: Sequence[UpdateRequest], history: Sequence[UpdateRequest] = (),
           settings: ProbeSettings | None = None) -> Scope:
        """The scope of a batch. `history`: earlier accepted requests, oldest first.

        An earlier request whose slot is asked again, in the batch or later in the history, is superseded.
        """
        taken = {request.slot for request in requests}
        live: list[UpdateRequest] = []
        superseded: list[UpdateRequest] = []
        for request in reversed(history):
            (superseded if request.slot in taken else live).append(request)
            taken.add(request.slot)
        return Scope(tuple(requests), tuple(reversed(live)), tuple(reversed(superseded)), settings or ProbeSettings())


@dataclass(frozen=True)
class Question:
    """One prompt of one probe, in tokens.

    `expected`: name -> (prompt, continuation), tokenised together. `own`: name -> how many tokens of the parent's
    greedy answer are the expectation. `likeliest` asks for the next token's distribution.
    """

    probe: str
    request: str
    role: str
    index: int
    prompt: str
    """Digest of the prompt's text."""
    ids: Tokens
    expected: Mapping[str, tuple[Tokens, Tokens]] = field(default_factory=dict)
    own: Mapping[str, int] = field(default_factory=dict)
    greedy_tokens: int = 0
    sampled_tokens: int = 0
    likeliest: bool = False

    @property
    def key(self) -> tuple[str, str, str, int]:
        """The same for parent and candidate."""
        return self.probe, self.request, self.role, self.index


class Scored(Recorded):
    """A continuation: its tokens, their mean log-probability (nats), and how many were the first choice."""

    ids: tuple[int, ...]
    mean: float
    hits: int

    @property
    def is_first_choice(self) -> bool:
        """Whether every token is the first choice, given those before."""
        return self.hits == len(self.ids)


class Likeliest(Recorded):
    """Log-probabilities of the parent's likeliest next tokens, and of all others together."""

    ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    rest: float


class Reply(Recorded):
    """What one model says to one question."""

    probe: str
    request: str
    role: str
    index: int
    prompt: str
    first: int
    """The first choice for the next token."""
    finite: bool
    """Whether the logits at the prompt's end are all finite."""
    scores: Mapping[str, Scored] = {}
    greedy: tuple[int, ...] = ()
    text: str = ""
    """The greedy answer, without special tokens."""
    sampled: str = ""
    likeliest: Likeliest | None = None

    @property
    def key(self) -> tuple[str, str, str, int]:
        """The same for parent and candidate."""
        return self.probe, self.request, self.role, self.index


class Observation(Recorded):
    """Everything one model said, under its digest."""

    model_digest: str
    reference_digest: str | None
    """The model whose own answers were the expectations; None when this model's own were."""
    questions_digest: str
    replies: tuple[Reply, ...]


def observation_key(model_digest: str, scope: Scope, reference: Observation | None = None) -> str:
    """The address of a stored observation: the same model, questions and protocol give the same key."""
    return digest_document({
        "protocol": PROTOCOL, "model": model_digest,
        "requests": [request.model_dump(mode="json") for request in scope.requests],
        "history": [request.model_dump(mode="json") for request in scope.history],
        "settings": scope.settings.model_dump(mode="json"),
        "shipped": [neutral_prompts(), held_out_texts()],
        "reference": None if reference is None else digest_document(json.loads(reference.model_dump_json()))})


@cache
def neutral_prompts() -> dict[str, list[str]]:
    """Prompts about nothing in particular: `plain` ones to go on with, and `chat` questions."""
    return dict(json.loads((HELD_OUT / "neutral_prompts.json").read_text(encoding="utf-8")))


@cache
def held_out_texts() -> tuple[str, ...]:
    """The texts that come with the house, one a passage; disjoint from every corpus that editors read."""
    files = sorted(HELD_OUT.glob("*.txt"))
    return tuple(passage.strip() for path in files for passage in path.read_text(encoding="utf-8").split("\n\n\n"))
