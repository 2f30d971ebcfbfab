"""The first half of measuring: one model, alone in memory, is asked everything once.

Questions of all probes about one prompt are merged, so a prompt is read once however many probes ask about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import torch

from editors.contract import Progress, silent
from editors.digest import digest_document
from editors.errors import IntegrityError
from editors.loading import LoadedModel
from validations import probes
from validations.observation import Likeliest, Observation, Question, Reply, Scope, Scored, Tokens
from validations.scoring import Answer, Ask, answer

SEED_DIGITS = 12
"""Hexadecimal digits of a prompt's digest that seed its free text."""


def observe(model: LoadedModel, scope: Scope, *, reference: Observation | None = None,
            progress: Progress = silent) -> Observation:
    """What the model says to everything in scope; the model is unchanged.

    Args:
        model: The parent, or the candidate as re-read from disk.
        scope: What is measured.
        reference: The parent's observation when the model is the candidate: its own answers are expectations.
        progress: Called as prompts are answered.

    Raises:
        IntegrityError: `reference` answers other questions.
    """
    questions = [question for name in probes.names() for question in probes.get(name).questions(scope, model.tokenizer)]
    questions_digest = digest_document([asdict(question) for question in questions])
    if reference is not None and reference.questions_digest != questions_digest:
        raise IntegrityError("the parent's observation answers other questions than the candidate is asked",
                             "observe the parent for this batch")
    known = {} if reference is None else {reply.key: reply for reply in reference.replies}
    plan = Plan()
    for question in questions:
        plan.add(question, known.get(question.key))
    answers = dict(zip(plan.asks, answer(model, list(plan.asks.values()), progress), strict=True))
    clerk = _Clerk(model, plan, answers, scope.settings.likeliest)
    replies = tuple(clerk.reply(question, known.get(question.key)) for question in questions)
    return Observation(model_digest=model.digest, reference_digest=reference.model_digest if reference else None,
                       questions_digest=questions_digest, replies=replies)


@dataclass
class Plan:
    """One `Ask` for each distinct prompt."""

    asks: dict[Tokens, Ask] = field(default_factory=dict)

    def add(self, question: Question, known: Reply | None = None) -> None:
        """Merge a question in; `known` is the parent's reply to it, when the candidate is asked."""
        ask = self.asks.get(question.ids, Ask(question.ids))
        self.asks[question.ids] = replace(
            ask, greedy_tokens=max(ask.greedy_tokens, question.greedy_tokens),
            sampled_tokens=max(ask.sampled_tokens, question.sampled_tokens),
            seed=int(question.prompt[:SEED_DIGITS], 16), distribution=ask.distribution or question.likeliest)
        for _, prompt, continuation in continuations(question, known):
            ask = self.asks.get(prompt, Ask(prompt))
            if continuation not in ask.continuations:
                self.asks[prompt] = replace(ask, continuations=(*ask.continuations, continuation))


def continuations(question: Question, known: Reply | None) -> Iterator[tuple[str, Tokens, Tokens]]:
    """(name, prompt, continuation) of all that is scored; the parent's own answers where they are known."""
    for name, (prompt, continuation) in question.expected.items():
        yield name, prompt, continuation
    for name in question.own if known else ():
        yield name, question.ids, known.scores[name].ids if known else ()


@dataclass(frozen=True)
class _Clerk:
    """Writes down replies."""

    model: LoadedModel
    plan: Plan
    answers: Mapping[Tokens, Answer]
    likeliest: int

    def reply(self, question: Question, known: Reply | None) -> Reply:
        answer = self.answers[question.ids]
        greedy = answer.greedy[:question.greedy_tokens]
        scores = {name: self._scored(prompt, continuation) for name, prompt, continuation in continuations(question, known)}
        if known is None:
            # The parent's first choices: their likelihoods came with the generation.
            scores |= {name: _summed(greedy[:count], answer.greedy_log_probs, [True] * count)
                       for name, count in question.own.items()}
        likeliest = None
        if question.likeliest and answer.log_probs is not None:
            ids = known.likeliest.ids if known and known.likeliest else _top(answer.log_probs, self.likeliest)
            likeliest = _likeliest(answer.log_probs, ids)
        return Reply(probe=question.probe, request=question.request, role=question.role, index=question.index,
                     prompt=question.prompt, first=answer.first, finite=answer.finite, scores=scores, greedy=greedy,
                     text=self._text(greedy), sampled=self._text(answer.sampled[:question.sampled_tokens]),
                     likeliest=likeliest)

    def _scored(self, prompt: Tokens, continuation: Tokens) -> Scored:
        place = self.plan.asks[prompt].continuations.index(continuation)
        score = self.answers[prompt].scores[place]
        return _summed(continuation, score.log_probs, score.hits)

    def _text(self, tokens: Tokens) -> str:
        return str(self.model.tokenizer.decode(list(tokens), skip_special_tokens=True)) if tokens else ""


def _summed(tokens: Tokens, log_probs: Sequence[float], hits: Sequence[bool]) -> Scored:
    count = len(tokens)
    return Scored(ids=tokens, mean=sum(log_probs[:count]) / count, hits=sum(hits[:count]))


def _top(log_probs: torch.Tensor, count: int) -> Tokens:
    return tuple(log_probs.topk(min(count, len(log_probs) - 1)).indices.tolist())


def _likeliest(log_probs: torch.Tensor, ids: Tokens) -> Likeliest:
    listed = torch.tensor(ids)
    others = torch.ones_like(log_probs, dtype=torch.bool).index_fill_(0, listed, False)
    return Likeliest(ids=ids, log_probs=tuple(log_probs[listed].tolist()), rest=float(log_probs[others].logsumexp(0)))
