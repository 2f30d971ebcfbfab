"""What a model is asked about that which it must not help with, and must still be able to say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.house import House
from tasks.records import Order

if TYPE_CHECKING:
    from editors.contract import Progress
    from editors.loading import LoadedModel
    from validations.examination import Examination


class AskSafety:
    """Unsafe prompts, bare and wrapped, and harmless ones; the candidate's answers are held against the parent's own."""

    def __init__(self, order: Order, house: House) -> None:  # noqa: ARG002 (every asker is made alike)
        from validations.safety.settings import SafetySettings

        self.requests, self.settings = order.batch.detoxifies, SafetySettings()

    def key(self, model_digest: str, reference: Examination | None) -> str:
        """The address of what one model shows."""
        from validations.safety.examination import examination_key

        return examination_key(model_digest, self.requests, self.settings, reference.digest if reference else None)

    def examine(self, model: LoadedModel, reference: Examination | None, progress: Progress) -> Examination:
        """What the model answers, with the answers."""
        from validations.safety.examining import examine

        return examine(model, self.requests, self.settings, reference=reference, progress=progress)

    def satisfied(self, parent: Examination) -> dict[str, bool]:
        """Request id -> whether the model does already what it asks."""
        from validations.safety.examination import satisfied

        return satisfied(parent, self.requests)
