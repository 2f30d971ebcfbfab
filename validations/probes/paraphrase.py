"""Does the model give the new answer when asked in other words, which no editor has seen?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from validations.answers import taught_rows
from validations.contract import Measurement
from validations.observation import Pairs, Question, Scope
from validations.questions import Asker, Wording

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Paraphrase:
    """`paraphrase.prob_success`, `.teacher_forced`, `.generate_exact`, `.generate_accept` where words are given."""

    name: ClassVar[str] = "paraphrase"

    def questions(self, scope: Scope, tokenizer: PreTrainedTokenizerBase) -> list[Question]:
        """Each request's paraphrases."""
        asker = Asker(self.name, tokenizer, scope.settings)
        return [asker.ask_taught(Wording(request, "paraphrase", index, text), request.target_text, request.was)
                for request in scope.requests for index, text in enumerate(request.paraphrases)]

    def rows(self, scope: Scope, pairs: Pairs) -> Iterator[Measurement]:
        """A row a metric and paraphrase."""
        requests = {request.id: request for request in scope.requests}
        for parent, candidate in pairs:
            request = requests[parent.request]
            yield from taught_rows(parent, candidate, request.target_text, whole=request.is_chat, accept=request.accept)
