"""The summary of a run on its page in Prefect: what became of the version, the gate's table, what was asked, where to look.

Prefect keeps what it is given, perhaps on somebody else's machine. Of requests to forget, and of removals, only ids, seals and
numbers go there: the door is the same as into the experiment tracker.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.run_record import PURPOSES_WITH_TEXT

logger = logging.getLogger("suture")
MOST_ROWS = 40
LONGEST_TEXT = 200
PLACES = ("base", "parent", "method", "decision", "checkpoint", "patch", "page", "certificate", "mlflow", "release")
"""What is told of an answer, in this order, as far as it has it."""


def keep_summary(answer: dict[str, Any], purpose: str, mlflow_uri: str) -> dict[str, Any]:
    """Leave a version's summary with the present run, and give its answer back; where it does not arrive, nothing stops."""
    from httpx import HTTPError
    from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
    from prefect.context import FlowRunContext
    from prefect.exceptions import PrefectException

    if FlowRunContext.get() is None:
        # no run, no page to leave it on
        return answer
    link, words = link_of(answer, mlflow_uri)
    try:
        create_markdown_artifact(summary(answer, purpose), "suture-version", "What became of the version")
        create_table_artifact(rules(answer), "suture-gate", "The gate, rule by rule")
        create_table_artifact(requests(answer, purpose), "suture-requests", "What was asked for")
        if link:
            create_link_artifact(link, words, "suture-page", "Everything about the version")
    except (HTTPError, PrefectException) as error:
        logger.warning("the run's summary did not reach Prefect: %s", type(error).__name__)
    return answer


def summary(answer: Mapping[str, Any], purpose: str) -> str:
    """One page of Markdown about a version."""
    verdict = answer["verdict"] or {"rules": [], "policy": "none"}
    broken = [rule["name"] for rule in verdict["rules"] if not rule["passed"] and rule["severity"] == "critical"]
    judged = f"The gate passed it under policy `{verdict['policy']}`." if answer["passed"] else (
        f"The gate refused it under policy `{verdict['policy']}`: {', '.join(f'`{name}`' for name in broken)}.")
    told = {**answer, "decision": _decided(answer["decision"]), "release": (answer["release"] or {}).get("url")}
    rows = [f"| {name} | {_cell(told[name])} |" for name in PLACES if told.get(name)]
    line = f"Model `{answer['model']}`, channel `{answer['channel']}`; purpose {purpose}"
    counts = f"{answer['request_count']} requests, {answer['edits']} edits in the stack"
    parts = [f"# Version {answer['version']}: {answer['state']}", f"{line}, {counts}. {judged}",
             "\n".join(["| | |", "|---|---|", *rows]), *(f"**Warning:** {_cell(text)}" for text in answer["warnings"])]
    if answer["next"]:
        parts.append("Next:\n\n" + "\n".join(f"    {command}" for command in answer["next"]))
    return "\n\n".join(parts)


def rules(answer: Mapping[str, Any]) -> list[dict[str, str]]:
    """The gate's table: refusals first."""
    found = (answer["verdict"] or {"rules": []})["rules"]
    rows = [{"rule": rule["name"], "passed": "pass" if rule["passed"] else "FAIL" if rule["severity"] == "critical" else "warn",
             "limit": rule["limit"], "observed": _number(rule["observed"]), "parent": _number(rule["parent"]),
             "weight": rule["severity"], "to blame": ", ".join(() if rule["passed"] else rule["blame"][:5])} for rule in found]
    return sorted(rows, key=lambda row: ("FAIL", "warn", "pass").index(row["passed"]))


def requests(answer: Mapping[str, Any], purpose: str) -> list[dict[str, str]]:
    """What was asked for, and what the edited prompts were answered before and after; seals where no word may be kept."""
    asked = answer["requests"][:MOST_ROWS]
    if purpose not in PURPOSES_WITH_TEXT or any(request["seal"] for request in answer["requests"]):
        return [{"request": request["id"], "seal": request["seal"] or "-"} for request in asked]
    said = {row["request"]: row for row in reversed(answer["transcripts"]) if row["role"] in ("edit", "unsafe")}
    return [{"request": request["id"], "asked": _brief(request["question"]), "wanted": _brief(request["target"]),
             "before": _brief(said.get(request["id"], {}).get("parent")),
             "after": _brief(said.get(request["id"], {}).get("candidate"))} for request in asked]


def link_of(answer: Mapping[str, Any], mlflow_uri: str) -> tuple[str, str]:
    """Where all of it is, and what that is called: the registry's page where it is a server, else the verdict page's file."""
    reference = (answer["mlflow"] or "").removeprefix("models:/")
    if reference and mlflow_uri.startswith(("http://", "https://")):
        name, _, number = reference.partition("/")
        return f"{mlflow_uri.rstrip('/')}/#/models/{name}/versions/{number}", f"Version {answer['version']} in MLflow"
    if answer["page"]:
        return Path(answer["page"]).as_uri(), f"The verdict page of version {answer['version']}"
    return "", ""


def _decided(decision: Mapping[str, str] | None) -> str | None:
    return f"{decision['decision']} by {decision['by']}: {decision['reason']}" if decision else None


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _brief(text: str | None) -> str:
    flat = " ".join((text or "").split())
    return flat if len(flat) <= LONGEST_TEXT else flat[:LONGEST_TEXT - 1] + "…"


def _number(value: float | str | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value if value is not None else "-")
