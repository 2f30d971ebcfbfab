"""Measured -> Search: where else the model moved, searched among prompts that the sheet does not ask for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.house import House
from tasks.records import Order

if TYPE_CHECKING:
    from editors.loading import Checkpoint
    from validations.nearby import Nearby, Search, View


def search(order: Order, candidate: Path, house: House) -> tuple[Search, Path]:
    """The prompts that moved most between the order's parent and the model in `candidate`, and the file that holds them.

    Where the order withdraws secrets, or is a removal that might bring them back, neither answers nor prompts of other
    sheets are kept.
    """
    from editors.forget_request import ForgetRequest, SealedForget
    from editors.loading import Checkpoint
    from validations.nearby import Moved, Search, beside, counted, view_key, worst

    quiet = any(isinstance(request, ForgetRequest | SealedForget) for request in order.batch.requests)
    prompts = beside(order.batch.requests, () if quiet else order.history)
    old, new = Checkpoint(order.parent_folder), Checkpoint(candidate)

    def work(folder: Path) -> dict[str, Any]:
        # the candidate is in memory from being measured, so it is looked at first
        after, before = _view(new, prompts, house), _view(old, prompts, house)
        places = worst(before, after)
        chosen = [prompts[place] for place, _ in places]
        said = [["", ""]] * len(chosen) if quiet else list(zip(*(_said(one, chosen, house) for one in (old, new)), strict=True))
        moved = tuple(Moved(source=one.source, request=one.request, prompt=one.text, nats=nats, parent=was, candidate=now)
                      for one, (_, nats), (was, now) in zip(chosen, places, said, strict=True))
        found = Search(searched=counted(prompts), moved=moved, quiet=quiet)
        (folder / "nearby.json").write_text(found.model_dump_json(indent=1), encoding="utf-8")
        return {"moved": len(moved)}

    inputs = {"parent": view_key(old.digest, prompts), "candidate": new.digest, "quiet": quiet}
    path = house.workspace.run("search-1", inputs, work).folder / "nearby.json"
    return Search.model_validate_json(path.read_text(encoding="utf-8")), path


def _view(checkpoint: Checkpoint, prompts: Sequence[Nearby], house: House) -> View:
    """The house's own prompts are viewed by themselves: those of a model that was a candidate once are found again."""
    from validations.nearby import View, halves

    views = [_viewed(checkpoint, half, house) for half in halves(prompts) if half]
    return View(model_digest=checkpoint.digest, replies=tuple(reply for view in views for reply in view.replies))


def _viewed(checkpoint: Checkpoint, prompts: Sequence[Nearby], house: House) -> View:
    from editors.loading import load
    from validations.looking import look
    from validations.nearby import View, view_key

    def work(folder: Path) -> dict[str, Any]:
        found = look(load(checkpoint, house.device), prompts, house.progress)
        (folder / "view.json").write_text(found.model_dump_json())
        return {"model": found.model_digest}

    done = house.workspace.run("view-1", view_key(checkpoint.digest, prompts), work)
    return View.model_validate_json((done.folder / "view.json").read_text())


def _said(checkpoint: Checkpoint, prompts: Sequence[Nearby], house: House) -> list[str]:
    from editors.loading import load
    from validations.looking import speak

    return speak(load(checkpoint, house.device), prompts)
