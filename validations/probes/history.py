"""Does every earlier accepted edit of the line still hold?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from validations.answers import taught_rows
from validations.contract import Measurement
from validations.observation import Pairs, Question, Scope
from validations.questions import Asker, Wording

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class History:
    """`history.prob_success`, `.teacher_forced`, `.generate_exact`, `.generate_accept`, and `.superseded`."""

    name: ClassVar[str] = "history"

    def questions(self, scope: Scope, tokenizer: PreTrainedTokenizerBase) -> list[Question]:
        """The own prompt of each earlier request; ids may come again along a line, so the place tells them apart."""
        asker = Asker(self.name, tokenizer, scope.settings)
        return [asker.ask_taught(Wording(request, "edit", index, request.question), request.target_text, request.was)
                for index, request in enumerate(scope.history)]

    def rows(self, scope: Scope, pairs: Pairs) -> Iterator[Measurement]:
        """A row a metric and earlier request; one row for each that the batch or a later one overwrote."""
        for parent, candidate in pairs:
            request = scope.history[parent.index]
            yield from taught_rows(parent, candidate, request.target_text, whole=request.is_chat, accept=request.accept)
        for request in scope.superseded:
            yield Measurement(request=request.id, probe=self.name, metric="history.superseded", prompt=request.slot,
                              parent=None, candidate=1.0)
