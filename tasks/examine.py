"""Order -> what a model shows where its purpose, or an earlier edit of its line, asks more than every edit is asked.

Parent and candidate are asked each alone; what one model showed is found again when it was asked the same before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tasks.ask_bias import AskBias
from tasks.ask_earlier import AskEarlier
from tasks.ask_safety import AskSafety
from tasks.ask_secrets import AskSecrets
from tasks.house import House
from tasks.records import Order

if TYPE_CHECKING:
    from editors.contract import Progress
    from editors.loading import Checkpoint, LoadedModel
    from validations.contract import Measurement, Transcript
    from validations.examination import Examination


class Asker(Protocol):
    """What is asked of both models, for one order."""

    def key(self, model_digest: str, reference: Examination | None) -> str:
        """The address of what one model shows; `reference` is the parent's where the model is a candidate."""

    def examine(self, model: LoadedModel, reference: Examination | None, progress: Progress) -> Examination:
        """Ask it."""


ASKERS: dict[str, type[AskSecrets] | type[AskSafety] | type[AskBias]] = {
    "forget": AskSecrets, "detoxify": AskSafety, "debias": AskBias}
"""By purpose; one that has no line asks no more than every edit is asked."""


@dataclass(frozen=True)
class Examined:
    """Rows and transcripts of a candidate against its parent."""

    rows: tuple[Measurement, ...] = ()
    said: tuple[Transcript, ...] = ()


def examined(order: Order, candidate: Checkpoint, house: House) -> Examined:
    """What is asked beyond every edit's probes, of parent and candidate; nothing where nothing more is asked."""
    from editors.loading import Checkpoint
    from validations.examination import rows_of, transcripts_of

    rows: list[Measurement] = []
    said: list[Transcript] = []
    for asker in _askers(order, house):
        before = _shown(asker, Checkpoint(order.parent_folder), None, house)
        after = _shown(asker, candidate, before, house)
        rows += rows_of(before, after)
        said += transcripts_of(before, after)
    return Examined(tuple(rows), tuple(said))


def satisfied(order: Order, house: House) -> dict[str, bool]:
    """Request id -> whether the parent does already what it asks, as far as the purpose asks by itself."""
    from editors.loading import Checkpoint

    if order.batch.purpose not in ASKERS:
        return {}
    asker = ASKERS[order.batch.purpose](order, house)
    return asker.satisfied(_shown(asker, Checkpoint(order.parent_folder), None, house))


def asked(order: Order, house: House) -> list[str]:
    """Digests of what is asked beyond every edit's probes, and how."""
    return [asker.key("", None) for asker in _askers(order, house)]


def _askers(order: Order, house: House) -> list[Asker]:
    own: list[Asker] = [ASKERS[order.batch.purpose](order, house)] if order.batch.purpose in ASKERS else []
    earlier = AskEarlier(order, house)
    return [*own, earlier] if earlier.requests else own


def _shown(asker: Asker, checkpoint: Checkpoint, reference: Examination | None, house: House) -> Examination:
    from editors.loading import load
    from validations.examination import Examination

    def work(folder: Path) -> dict[str, Any]:
        found = asker.examine(load(checkpoint, house.device), reference, house.progress)
        (folder / "examination.json").write_text(found.model_dump_json())
        return {"model": found.model_digest}

    done = house.workspace.run("examine-2", {"key": asker.key(checkpoint.digest, reference)}, work)
    return Examination.model_validate_json((done.folder / "examination.json").read_text())
