"""The inbox flow: carry out every sheet that waits in a folder or under an `s3://` prefix, each exactly once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow

from editors.errors import PromotionConflict, ServiceError, StoreError, SutureError
from flows.edit import edit
from flows.house import open_house
from flows.progress import current
from flows.settings import read_settings
from tasks.house import House, store_at
from tasks.inbox import SHIPPED, Claim, Inbox, Outcome, Terms, kept
from tasks.inbox_bucket import BucketInbox
from tasks.inbox_folder import FolderInbox

Edit = Callable[[str], dict[str, Any]]
PASSING = (StoreError, ServiceError, PromotionConflict)
"""Not the sheet's fault, and likely over when it is tried again."""


@flow(name="inbox", persist_result=False)
def inbox(place: str, most: int = 100) -> dict[str, Any]:
    """Take sheets one after the other, edit, and move each to `done` or `refused` with its answer beside it.

    Args:
        place: A folder, or `s3://bucket/prefix`.
        most: So many sheets at most; the next run takes the rest.

    Returns:
        The names of the sheets that are done, refused, and left for a later run, each with its reason.

    Raises:
        ConfigError: the folder is not there.
        StoreError: the bucket cannot be reached.
    """
    with open_house(read_settings()) as house:
        return work_through(open_inbox(place, house), edit, most)


def open_inbox(place: str, house: House, terms: Terms = SHIPPED) -> Inbox:
    """The inbox at a folder or an `s3://bucket/prefix`."""
    if place.startswith("s3://"):
        return BucketInbox(store_at(place, house), terms)
    return FolderInbox(Path(place).expanduser().absolute(), terms)


def work_through(box: Inbox, carry_out: Edit, most: int, terms: Terms = SHIPPED) -> dict[str, Any]:
    """Claim and carry out what waits. What is no sheet's fault ends the run: the next sheet would meet it, too."""
    answer: dict[str, Any] = {"place": box.place, "done": [], "refused": [], "left": []}
    for ticket in box.waiting()[:most]:
        claim = box.claim(ticket)
        if claim is None:
            continue
        current().note(f"inbox: {claim.name}, attempt {claim.attempt}")
        try:
            with kept(claim, terms.lease_seconds / 10):
                outcome, document = claim.answered() or _answer(claim, carry_out, terms)
        except PASSING as error:
            claim.give_back()
            answer["left"].append(_line(claim, error.message, error.hint))
            break
        except Exception:
            # a fault of ours: the claim runs out, and the attempt counts
            raise
        except BaseException:
            # stopped from outside
            claim.give_back()
            raise
        if claim.finish(outcome, document):
            told = {name: document.get(name) for name in ("version", "state", "reason")}
            answer[outcome].append({"sheet": claim.name, **told})
        else:
            answer["left"].append(_line(claim, "another worker took this sheet over", "look for its answer in done or refused"))
    return {**answer, "next": [f"look into {box.place}/refused"] if answer["refused"] else []}


def _answer(claim: Claim, carry_out: Edit, terms: Terms) -> tuple[Outcome, dict[str, Any]]:
    """What became of a sheet: the edit's own answer, or why there is none."""
    if claim.attempt > terms.most_attempts:
        return "refused", {"sheet": claim.name, "passed": False, "error": "Abandoned",
                           "reason": f"{terms.most_attempts} workers died over this sheet",
                           "next": "split it, or give the worker more memory"}
    try:
        document = carry_out(claim.address)
    except PASSING:
        raise
    except SutureError as error:
        return "refused", {"sheet": claim.name, "passed": False, "error": type(error).__name__, "reason": error.message,
                           "next": error.hint}
    failed = [f"{rule['name']}: {rule['observed']}, wanted {rule['limit']}" for rule in document["verdict"]["rules"]
              if not rule["passed"] and rule["severity"] == "critical"]
    reason = None if document["passed"] else "the gate refused it: " + "; ".join(failed)
    return "done" if document["passed"] else "refused", {**document, "sheet": claim.name, "reason": reason}


def _line(claim: Claim, reason: str, hint: str) -> dict[str, Any]:
    return {"sheet": claim.name, "reason": reason, "next": hint}
