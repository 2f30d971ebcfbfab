"""What a trial edit is asked: known facts turned into counterfactual requests, and the score of the answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from editors.contract import Frozen, Neighbour, UpdateRequest
from editors.known_facts import KnownFact

if TYPE_CHECKING:
    from editors.loading import LoadedModel

NEIGHBOURS = 4
PERPLEXITY_EXPONENT = 3.0
"""2% more perplexity, the most that the shipped gate allows, costs 6% of the score; a tenth costs a quarter."""


class Marks(Frozen):
    """Shares in [0, 1], and the perplexity on held-out text as a ratio to the unedited model's."""

    success: float
    paraphrase: float
    neighbourhood: float
    perplexity_ratio: float

    @property
    def score(self) -> float:
        """How good these marks are, in one number."""
        return score(self.success, self.paraphrase, self.neighbourhood, self.perplexity_ratio)


NOTHING = Marks(success=0.0, paraphrase=0.0, neighbourhood=0.0, perplexity_ratio=1.0)
"""Of an edit that could not be made."""


def score(success: float, paraphrase: float, neighbourhood: float, perplexity_ratio: float) -> float:
    """The harmonic mean of the three shares, divided by the cube of the perplexity's rise.

    The harmonic mean is low where any share is. An edit that makes the model read better gains nothing by it.
    Shares: success, the counterfactual answer is likelier than the true one on the edited prompt; paraphrase, the same on
    other wordings; neighbourhood, another subject's true answer is likelier than the counterfactual one.
    Likelihoods are means over an answer's tokens.
    """
    shares = (success, paraphrase, neighbourhood)
    if min(shares) <= 0 or not math.isfinite(perplexity_ratio):
        return 0.0
    return len(shares) / sum(1 / share for share in shares) / max(1.0, perplexity_ratio) ** PERPLEXITY_EXPONENT


def requests_of(facts: Sequence[KnownFact], most: int) -> tuple[UpdateRequest, ...]:
    """Up to `most` counterfactual requests, taken from the relations in turn.

    Of a relation's facts every other one is edited: its target is the next other answer of the relation, its neighbours
    are the facts that are not edited and do not have that answer. Relations that cannot offer both are left out.
    """
    relations: dict[str, list[KnownFact]] = {}
    for fact in facts:
        relations.setdefault(fact.relation, []).append(fact)
    queues = [found for group in relations.values() if (found := _requests(group))]
    turns = [queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue)]
    return tuple(turns[:most])


class Examiner:
    """Puts the questions of a set of requests to a model, and its held-out text before it."""

    def __init__(self, model: LoadedModel, requests: Sequence[UpdateRequest], held_out_tokens: int) -> None:
        from validations.observation import ProbeSettings, Scope
        from validations.probes.perplexity import Perplexity

        self.model = model
        self.questions = [question for request in requests for question in self._questions(request)]
        self.texts = Perplexity().questions(Scope.of((), settings=ProbeSettings(held_out_tokens=held_out_tokens)),
                                            model.tokenizer)

    def shares(self) -> dict[str, float]:
        """Role -> the share of its questions in which the wanted answer is the likelier one."""
        found: dict[str, list[float]] = {}
        scores = iter(self._scores([pair for question in self.questions for pair in question.expected.values()]))
        for question in self.questions:
            wanted, other = next(scores)[0], next(scores)[0]
            found.setdefault(question.role, []).append(float(wanted > other))
        return {role: sum(values) / len(values) for role, values in found.items()}

    def loss(self) -> float:
        """Mean negative log-likelihood a token of the held-out text, nats."""
        pairs = [question.expected["text"] for question in self.texts]
        lengths = [len(scored) for _, scored in pairs]
        scores = self._scores(pairs)
        return -sum(mean * length for (mean, _), length in zip(scores, lengths, strict=True)) / sum(lengths)

    def knows(self) -> list[bool]:
        """For each edited prompt, whether the true answer is the model's first choice."""
        asked = [question.expected["other"] for question in self.questions if question.role == "edit"]
        return [is_first for _, is_first in self._scores(asked)]

    def _questions(self, request: UpdateRequest) -> list[Any]:
        from validations.observation import ProbeSettings
        from validations.questions import Asker, Wording

        asker = Asker("calibrate", self.model.tokenizer, ProbeSettings())
        new, true = request.target_text, request.was or ""
        asked = [("edit", request.question, new, true)]
        asked += [("paraphrase", text, new, true) for text in request.paraphrases]
        asked += [("neighbour", near.prompt, near.answer or "", new) for near in request.neighbours]
        return [asker.ask(Wording(request, role, index, text), {"wanted": wanted, "other": other})
                for index, (role, text, wanted, other) in enumerate(asked)]

    def _scores(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[tuple[float, bool]]:
        """(mean log-probability, all first choices) of each (prompt, continuation)."""
        from validations.scoring import Ask, answer

        asks: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for prompt, continuation in pairs:
            asks.setdefault(prompt, []).append(continuation)
        answers = answer(self.model, [Ask(prompt, tuple(wanted)) for prompt, wanted in asks.items()])
        found: Mapping[tuple[int, ...], Any] = dict(zip(asks, (iter(one.scores) for one in answers), strict=True))
        scores = [next(found[prompt]) for prompt, _ in pairs]
        return [(sum(one.log_probs) / len(one.log_probs), all(one.hits)) for one in scores]


def _requests(group: Sequence[KnownFact]) -> list[UpdateRequest]:
    edited, kept = group[::2], group[1::2]
    found = []
    for place, fact in enumerate(edited):
        after = [*group[2 * place + 1:], *group[:2 * place]]
        target = next((other.answer for other in after if other.answer != fact.answer), None)
        near = tuple(Neighbour(prompt=other.asked(other.prompt), answer=other.answer)
                     for other in kept if other.answer != target)[:NEIGHBOURS]
        if target is not None and near:
            found.append(UpdateRequest(
                id=f"{fact.relation}: {fact.subject}", prompt=fact.prompt, subject=fact.subject, target=target, was=fact.answer,
                paraphrases=tuple(fact.asked(wording) for wording in fact.paraphrases), neighbours=near))
    return found
