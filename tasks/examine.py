"""Order -> what a model holds of the order's secrets: numbers, found again when the same model was asked before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.house import House
from tasks.later_edit import later_edit
from tasks.own_text import scrub_own_text
from tasks.records import Order

if TYPE_CHECKING:
    from editors.loading import Checkpoint
    from validations.contract import Measurement
    from validations.examination import Examination


def examined(order: Order, candidate: Checkpoint, house: House) -> tuple[Measurement, ...]:
    """What parent and candidate hold of every secret, row by row; nothing where the order has none."""
    from editors.loading import Checkpoint
    from validations.examination import rows_of

    if not order.batch.forgets:
        return ()
    return rows_of(examine(order, Checkpoint(order.parent_folder), house), examine(order, candidate, house))


def unheld(order: Order, house: House) -> dict[str, bool]:
    """Request id -> whether the parent neither says the secret nor gives it an advantage over others of its form."""
    from editors.loading import Checkpoint

    seen = examine(order, Checkpoint(order.parent_folder), house).findings
    advantage = {finding.request for finding in seen if finding.metric == "exposure.within_controls" and finding.value < 1}
    said = {finding.request for finding in seen if finding.metric == "extraction.verbatim" and finding.value > 0}
    return {request.id: request.id not in advantage | said for request in order.batch.forgets}


def protocol(order: Order, house: House) -> str | None:
    """The name of how secrets are tried, the later edit included; None where the order has none."""
    from validations.forgetting.examination import settings_digest
    from validations.forgetting.settings import ForgetSettings

    return settings_digest(ForgetSettings(), later_edit(order, house).digest) if order.batch.forgets else None


def examine(order: Order, checkpoint: Checkpoint, house: House) -> Examination:
    """Everything that one model is asked about the order's secrets."""
    from editors.loading import load
    from validations.examination import Examination
    from validations.forgetting.examination import examination_key
    from validations.forgetting.examining import examine as ask
    from validations.forgetting.settings import ForgetSettings

    scrub_own_text(order, house)
    settings, later = ForgetSettings(), later_edit(order, house)

    def work(folder: Path) -> dict[str, Any]:
        found = ask(load(checkpoint, house.device), order.batch.forgets, settings, later=later, progress=house.progress)
        (folder / "examination.json").write_text(found.model_dump_json())
        return {"model": found.model_digest}

    key = examination_key(checkpoint.digest, order.batch.forgets, settings, later.digest)
    done = house.workspace.run("examine-1", {"key": key}, work)
    return Examination.model_validate_json((done.folder / "examination.json").read_text())
