"""What a run leaves on its page in Prefect; that it arrives there is seen in the walks of `test_line` and `test_forget`."""

from __future__ import annotations

from typing import Any

from flows.artifacts import link_of, requests, rules, summary

SEAL = "5ea1" * 16


def rule(name: str, passed: bool, severity: str = "critical", **more: Any) -> dict[str, Any]:
    return {"name": name, "passed": passed, "severity": severity, "observed": 0.5, "parent": None, "limit": ">= 0.9",
            "blame": ["lebron", "tower"], **more}


def told(**changes: Any) -> dict[str, Any]:
    asked = {"id": "lebron", "question": "LeBron plays", "target": "basketball", "seal": None}
    said = [{"request": "lebron", "role": role, "parent": f"{role} before", "candidate": f"{role} after"}
            for role in ("edit", "paraphrase")]
    answer = {"version": "3f9a1c2b7d04", "state": "refused", "model": "tiny", "channel": "demo", "passed": False, "edits": 2,
              "request_count": 1, "base": "a|b", "parent": None, "method": "memit", "decision": None, "release": None,
              "page": "/home/page.html", "mlflow": "models:/tiny.demo/3", "warnings": ["look at it"],
              "verdict": {"policy": "update", "rules": [rule("a.first", True), rule("b.second", False, "warning"),
                                                        rule("c.third", False, observed=None)]},
              "requests": [asked], "transcripts": said, "next": ["suture show 3f9a1c2b7d04"]}
    return answer | changes


def test_the_summary_names_the_verdict_the_places_and_the_next_command() -> None:
    page = summary(told(), "update")
    assert page.startswith("# Version 3f9a1c2b7d04: refused\n")
    assert "The gate refused it under policy `update`: `c.third`." in page
    assert "| base | a\\|b |" in page
    assert "| parent" not in page
    assert "**Warning:** look at it" in page
    assert page.endswith("\n    suture show 3f9a1c2b7d04")
    passed = told(passed=True, decision={"decision": "approve", "by": "ann", "reason": "looked"}, release={"url": "s3://x/y"})
    assert "| decision | approve by ann: looked |" in summary(passed, "update")
    assert "| release | s3://x/y |" in summary(passed, "update")


def test_the_gates_table_begins_with_what_refused() -> None:
    rows = rules(told())
    assert [(row["rule"], row["passed"], row["observed"], row["to blame"]) for row in rows] == [
        ("c.third", "FAIL", "-", "lebron, tower"), ("b.second", "warn", "0.5", "lebron, tower"), ("a.first", "pass", "0.5", "")]


def test_words_of_requests_are_told_only_where_they_are_no_secret() -> None:
    assert requests(told(), "update") == [
        {"request": "lebron", "asked": "LeBron plays", "wanted": "basketball", "before": "edit before", "after": "edit after"}]
    assert requests(told(), "removal") == [{"request": "lebron", "seal": "-"}]
    secret = {"id": "case-1", "question": None, "target": None, "seal": SEAL}
    assert requests(told(requests=[secret]), "forget") == [{"request": "case-1", "seal": SEAL}]
    # not where a purpose with words stands beside it, either
    assert requests(told(requests=[*told()["requests"], secret]), "update")[0] == {"request": "lebron", "seal": "-"}


def test_the_link_leads_to_the_registry_or_to_the_page() -> None:
    assert link_of(told(), "http://mlflow:5000/")[0] == "http://mlflow:5000/#/models/tiny.demo/versions/3"
    assert link_of(told(), "sqlite:////home/m.db") == ("file:///home/page.html", "The verdict page of version 3f9a1c2b7d04")
    assert link_of(told(page=None, mlflow=None), "http://mlflow:5000") == ("", "")
