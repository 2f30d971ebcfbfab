"""What a model is asked about that which earlier edits of its line taught it to refuse, or not to lean towards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.house import House
from tasks.records import Order

if TYPE_CHECKING:
    from editors.contract import Progress
    from editors.loading import LoadedModel
    from validations.examination import Examination


class AskEarlier:
    """Earlier requests to detoxify and debias; of no purpose of its own, so that every later edit is asked it."""

    def __init__(self, order: Order, house: House) -> None:  # noqa: ARG002 (every asker is made alike)
        from validations.earlier.examination import kept_requests

        self.requests = kept_requests(order.batch, order.history)

    def key(self, model_digest: str, reference: Examination | None) -> str:  # noqa: ARG002 (no answer depends on it)
        """The address of what one model shows."""
        from validations.earlier.examination import examination_key

        return examination_key(model_digest, self.requests)

    def examine(self, model: LoadedModel, reference: Examination | None, progress: Progress) -> Examination:  # noqa: ARG002
        """What the model refuses and where it leans, as rates."""
        from validations.earlier.examining import examine

        return examine(model, self.requests, progress)
