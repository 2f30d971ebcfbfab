"""Did what follows from the edit follow: its consequences, inverses, aliases?

`prob_success` asks whether the implied answer is likelier than what the parent said of itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from validations.answers import accepted_words, taught_rows
from validations.contract import Measurement
from validations.observation import Pairs, Question, Scope
from validations.questions import Asker, Wording

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Portability:
    """`portability.prob_success`, `.teacher_forced`, `.generate_exact`, and in a chat `.generate_accept`."""

    name: ClassVar[str] = "portability"

    def questions(self, scope: Scope, tokenizer: PreTrainedTokenizerBase) -> list[Question]:
        """Each request's implications."""
        asker = Asker(self.name, tokenizer, scope.settings)
        return [asker.ask_taught(Wording(request, "implication", index, implication.prompt), implication.answer, None)
                for request in scope.requests for index, implication in enumerate(request.implications)]

    def rows(self, scope: Scope, pairs: Pairs) -> Iterator[Measurement]:
        """A row a metric and implication."""
        requests = {request.id: request for request in scope.requests}
        for parent, candidate in pairs:
            request = requests[parent.request]
            answer = request.implications[parent.index].answer
            yield from taught_rows(parent, candidate, answer.strip(), whole=request.is_chat,
                                   accept=accepted_words(request, answer))
