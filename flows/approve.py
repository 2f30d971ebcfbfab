"""Approve: one version asks one person, by a form on Prefect's pages; the answer becomes a decision like any other.

The run is suspended, so it holds no process and no memory while people make up their minds, and any worker takes it up again.
A run asks once. Where more approvals are needed, or the answer did not count, the event that started it starts the next one:
what is written once is never answered twice by a run that begins again from its top.
"""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from editors.errors import SutureError
from flows import release
from flows.answers import approval_line
from flows.events import emit
from flows.settings import read_settings

FORM = "by Prefect's form"


class Answer(RunInput):
    """What a person says about one version. Nothing is filled in: resuming without an answer decides nothing."""

    decision: Literal["approve", "refuse"] = Field(description="One refusal ends it. A decision is final.")
    approver: str = Field(min_length=1, max_length=200, description="Your name, as the policy names you.")
    comment: str = Field(min_length=1, max_length=2000, description="Why; kept with the decision and in the ledger.")


@flow(name="approve", flow_run_name="approve {version}", persist_result=False)
def approve(version: str) -> dict[str, Any]:
    """Ask one person to decide on a version, and write the decision down.

    Args:
        version: The version, or its unique beginning.

    Returns:
        The decision and what is still missing; where the version waits for nobody, its state.

    Raises:
        NotEntitled: the policy does not let this person decide.
        PromotionConflict: this person said otherwise before, or somebody refused.
        GateRefused: the gate refused the version, so it cannot be approved.
    """
    settings = read_settings()
    told = release.show(settings, version)
    if told["state"] in ("base", "refused", "turned down"):
        return {"version": told["version"], "state": told["state"], "next": told["next"]}
    # a run that goes on after its answer comes by here again, and is given the answer
    given = suspend_flow_run(wait_for_input=Answer.with_initial_data(description=question(told)), key=told["version"])
    try:
        answer = release.approve(settings, told["version"], given.approver, f"{given.comment} ({FORM})",
                                 refuse=given.decision == "refuse")
    except SutureError:
        _ask_on(told)
        raise
    if answer["approval"]["missing"] and not answer["approval"]["refusal"]:
        _ask_on(told)
    return answer


def question(told: dict[str, Any]) -> str:
    """What the form says above its fields, as Markdown; no word of any request."""
    count, verdict = told["request_count"], told["verdict"]["rules"] if told["verdict"] else []
    rows = [f"| {'passed' if rule['passed'] else 'FAILED'} | {rule['name']} | {rule['severity']} |" for rule in verdict]
    what = (f"{count} request{'s' if count > 1 else ''} by {told['method']} for channel **{told['channel']}** of "
            f"**{told['model']}**, on top of {told['parent'] or 'the unedited base'}.")
    return "\n".join([
        f"# Approve {told['version']}?",
        what,
        "",
        f"Where it stands: {approval_line(told['approval'])}.",
        "",
        f"Look at it first: `suture show {told['version']}`; its page is among the files of its run in MLflow.",
        "",
        "| gate | rule | severity |", "|---|---|---|", *rows])


def _ask_on(told: dict[str, Any]) -> None:
    if told["state"] == "pending":
        emit("waiting", told)
