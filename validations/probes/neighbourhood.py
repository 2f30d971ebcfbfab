"""Do questions near the edit keep their answers, rather than take the new one?

The expectation is the sheet's answer, or the beginning of the parent's own: as many tokens as the new answer has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from validations.answers import accepted_words, holds, prefers, row, says
from validations.contract import Measurement
from validations.observation import Pairs, Question, Reply, Scope
from validations.questions import Asker, Wording

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Neighbourhood:
    """`neighbourhood.prob_success`, `.teacher_forced`, `.generate_exact`, and in a chat `.generate_accept`.

    Source: Meng et al. 2022, arXiv:2202.05262, section 3.3 (NS), for `prob_success`.
    """

    name: ClassVar[str] = "neighbourhood"

    def questions(self, scope: Scope, tokenizer: PreTrainedTokenizerBase) -> list[Question]:
        """Each request's neighbours, with the new answer as the rival."""
        asker = Asker(self.name, tokenizer, scope.settings)
        questions = []
        for request in scope.requests:
            for index, neighbour in enumerate(request.neighbours):
                answers = {"target": request.target_text} | ({"kept": neighbour.answer} if neighbour.answer else {})
                own: dict[str, int | str] = {} if neighbour.answer else {"kept": "target"}
                questions.append(asker.ask(Wording(request, "neighbour", index, neighbour.prompt), answers, own=own,
                                           free=asker.room(request)))
        return questions

    def rows(self, scope: Scope, pairs: Pairs) -> Iterator[Measurement]:
        """A row a metric and neighbour."""
        requests = {request.id: request for request in scope.requests}
        for parent, candidate in pairs:
            request = requests[parent.request]
            answer = request.neighbours[parent.index].answer
            tokens = len(parent.scores["kept"].ids)
            yield row("prob_success", parent, prefers(parent, "kept", "target"), prefers(candidate, "kept", "target"))
            yield row("teacher_forced", parent, parent.scores["kept"].hits / tokens,
                      candidate.scores["kept"].hits / tokens, tokens)
            yield row("generate_exact", parent, _says_kept(parent, parent, answer, request.is_chat),
                      _says_kept(candidate, parent, answer, request.is_chat))
            if words := accepted_words(request, answer):
                yield row("generate_accept", parent, holds(parent.text, words), holds(candidate.text, words))


def _says_kept(reply: Reply, parent: Reply, answer: str | None, whole: bool) -> float:
    """Whether the free answer is the expected one; against the parent's own answer token by token."""
    if answer:
        return says(reply.text, answer.strip(), whole)
    kept = parent.scores["kept"].ids
    return float(reply.greedy[:len(kept)] == kept)
