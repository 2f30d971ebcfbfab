"""What a model is asked about the groups that terms imply."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.house import House
from tasks.records import Order

if TYPE_CHECKING:
    from editors.contract import Progress
    from editors.loading import LoadedModel
    from validations.examination import Examination


class AskBias:
    """Terms in templates, terms with a group by meaning, and pairs of sentences."""

    def __init__(self, order: Order, house: House) -> None:  # noqa: ARG002 (every asker is made alike)
        from validations.bias.settings import BiasSettings

        self.requests, self.settings = order.batch.debiases, BiasSettings()

    def key(self, model_digest: str, reference: Examination | None) -> str:  # noqa: ARG002 (probabilities need no reference)
        """The address of what one model shows."""
        from validations.bias.examination import examination_key

        return examination_key(model_digest, self.requests, self.settings)

    def examine(self, model: LoadedModel, reference: Examination | None, progress: Progress) -> Examination:  # noqa: ARG002
        """How likely either group is after every term."""
        from validations.bias.examining import examine

        return examine(model, self.requests, self.settings, progress=progress)

    def satisfied(self, parent: Examination) -> dict[str, bool]:
        """Request id -> whether the model does already what it asks."""
        from validations.bias.examination import satisfied

        return satisfied(parent, self.requests)
