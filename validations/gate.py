"""The gate: does this candidate pass, and which rule refuses it. The only importer of Great Expectations.

It fails closed. Great Expectations ignores missing values, passes an empty table, an empty suite, a row condition that
matches nothing, a bound that is None and infinity where only one bound is set. So: one table a rule and no row
conditions; a row count, a not-null check and two finite bounds with every rule; every expectation sent must come back;
and a rule passes only when this house's own reading of the same numbers agrees.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from editors.contract import EditBatch, EditRequest
from editors.errors import ConfigError
from validations.contract import Measurements, Rule, Verdict
from validations.policy import LARGEST, Policy
from validations.request_suite import (
    NOTHING_TO_TEACH,
    REQUEST_RULES,
    Problem,
    RequestRule,
    broken,
    whole_batch_problems,
)
from validations.tables import RuleTable, applied, digest_table, promises, rule_table

if TYPE_CHECKING:
    import pandas as pd

ROWS_AT_MOST = 10_000_000
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Judgement:
    """A verdict with Great Expectations' own results, rule by rule, ready to be written as JSON."""

    verdict: Verdict
    evidence: dict[str, Any]


@dataclass(frozen=True)
class RequestJudgement:
    """What intake found, with Great Expectations' own results. `refused` when a problem is critical."""

    problems: tuple[Problem, ...]
    evidence: dict[str, Any]

    @property
    def refused(self) -> bool:
        """Whether the batch may not be edited."""
        return any(problem.severity == "critical" for problem in self.problems)


@dataclass(frozen=True)
class Check:
    """One built-in expectation, as data: its class name and its arguments."""

    expectation: str
    arguments: Mapping[str, Any]


def warm() -> None:
    """Import Great Expectations (six seconds and more); call it in a thread while a model works."""
    import great_expectations.expectations  # noqa: F401


def judge(measurements: Measurements, policy: Policy, batch: EditBatch, *, earlier: Sequence[EditRequest] = (),
          candidate_digest: str | None = None) -> Judgement:
    """Judge one candidate.

    Args:
        measurements: Parent and candidate, each under its digest.
        policy: The rules.
        batch: The batch that was carried out; says which rows are promised.
        earlier: Accepted requests of the same line; each must have been measured again.
        candidate_digest: Digest of the candidate as it lies on disk, where the caller has it.

    Raises:
        ConfigError: the policy is for another purpose.
    """
    if policy.purpose != batch.purpose:
        raise ConfigError(f"the policy is for {policy.purpose!r}, the batch for {batch.purpose!r}",
                          f"use validations/policies/{batch.purpose}.yaml")
    asset = _asset()
    tables = [digest_table(measurements, batch, candidate_digest)]
    tables += [rule_table(applied(rule, batch), measurements.rows, promises(rule.probe, batch, earlier))
               for rule in policy.rules]
    judged: list[Rule] = []
    evidence: dict[str, Any] = {}
    for table in tables:
        if table.is_empty_by_right:
            judged.append(_not_measured(table))
            continue
        passed, evidence[table.rule.name] = expects(frame_of(table), checks_of(table), asset)
        judged.append(_rule(table, passed and table.holds))
    critical = [rule for rule in judged if rule.severity == "critical"]
    verdict = Verdict(
        passed=bool(critical) and all(rule.passed for rule in critical), rules=tuple(judged), policy=policy.purpose,
        policy_digest=policy.digest, batch_digest=batch.digest, parent_digest=measurements.parent_digest,
        candidate_digest=measurements.candidate_digest, measurements_digest=measurements.digest)
    return Judgement(verdict, evidence)


def judge_requests(rows: Sequence[Mapping[str, Any]], rules: Sequence[RequestRule] = REQUEST_RULES,
                   nothing_left: str = NOTHING_TO_TEACH) -> RequestJudgement:
    """Judge a batch before anything is edited. `rows` is what the rules' own suite makes of it: facts, no texts."""
    import pandas as pd

    problems = list(whole_batch_problems(rows, nothing_left))
    if not rows:
        return RequestJudgement(tuple(problems), {})
    checks = [Check("ExpectTableRowCountToBeBetween", {"min_value": len(rows), "max_value": len(rows)})]
    for rule in rules:
        checks += [Check("ExpectColumnValuesToNotBeNull", {"column": rule.column}),
                   Check("ExpectColumnValuesToBeBetween",
                         {"column": rule.column, "min_value": rule.lowest, "max_value": rule.highest})]
        problems += broken(rule, rows)
    passed, evidence = expects(pd.DataFrame(list(rows)), checks)
    if not passed and not problems:
        problems.append(Problem(request="-", rule="batch.judged", severity="critical",
                                message="the batch could not be judged; see Great Expectations' result"))
    return RequestJudgement(tuple(problems), evidence)


def expects(frame: pd.DataFrame, checks: Sequence[Check], asset: Any = None) -> tuple[bool, dict[str, Any]]:
    """Whether Great Expectations passes every check on the table, and its own result as a document.

    `asset` is the in-memory data asset to use again, which saves a tenth of a second a table.

    Returns:
        True only when every check sent came back and passed.

    Raises:
        ConfigError: there is no check, or one has an argument that is None or not finite.
    """
    import great_expectations as gx
    import great_expectations.expectations as built_in

    _validate(checks)
    asset = asset or _asset()
    batch = asset.get_batch(asset.build_batch_request(options={"dataframe": frame}))
    suite = gx.ExpectationSuite(name="rule", expectations=[
        getattr(built_in, check.expectation)(**check.arguments) for check in checks])
    result = batch.validate(suite, result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["row"]})
    answered = [one for one in result.results if one.success is True]
    return len(answered) == len(checks) == len(result.results), _plain(result.to_json_dict())


def _asset() -> Any:
    """A data asset for frames in memory, in a context that writes nothing."""
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    return context.data_sources.add_pandas("measurements").add_dataframe_asset("rule")


def _validate(checks: Sequence[Check]) -> None:
    if not checks:
        raise ConfigError("a rule came without expectations, which Great Expectations would pass")
    for check in checks:
        for name, value in check.arguments.items():
            if value is None or (isinstance(value, float) and not math.isfinite(value)):
                raise ConfigError(f"{check.expectation} got {name}={value}, which Great Expectations would drop",
                                  "give a finite number")


def checks_of(table: RuleTable) -> list[Check]:
    """Enough rows, none missing, none infinite, each promised request there, and the rule's own limit."""
    low, high = table.rule.bounds
    expectation = {"mean": "ExpectColumnMeanToBeBetween", "min": "ExpectColumnMinToBeBetween",
                   "max": "ExpectColumnMaxToBeBetween", "every": "ExpectColumnValuesToBeBetween",
                   "count": "ExpectColumnSumToBeBetween"}[table.rule.aggregate]
    checks = [
        Check("ExpectTableRowCountToBeBetween", {"min_value": max(table.required, 1), "max_value": ROWS_AT_MOST}),
        Check("ExpectColumnValuesToNotBeNull", {"column": "judged"}),
        Check("ExpectColumnValuesToBeBetween", {"column": "judged", "min_value": -LARGEST, "max_value": LARGEST}),
    ]
    if table.promised:
        checks.append(Check("ExpectColumnDistinctValuesToContainSet",
                            {"column": "request", "value_set": sorted(table.promised)}))
    limit = Check(expectation, {"column": "judged", "min_value": low, "max_value": high})
    return checks if limit in checks else [*checks, limit]


def frame_of(table: RuleTable) -> pd.DataFrame:
    """The table Great Expectations sees: ids and numbers, no text."""
    import pandas as pd

    return pd.DataFrame({
        "row": [f"{row.request}/{row.prompt}" for row in table.rows],
        "request": pd.Series([row.request for row in table.rows], dtype="object"),
        "judged": pd.Series(list(table.judged), dtype="float64"),
    })


def _rule(table: RuleTable, passed: bool) -> Rule:
    observed = table.observed
    return Rule(name=table.rule.name, passed=passed, severity=table.rule.severity, limit=table.rule.limit,
                observed=_why_no_number(table) if observed is None else observed, meaning=table.rule.meaning,
                parent=table.parent, count=len(table.rows), interval=table.interval,
                blame=() if passed else table.blame())


def _why_no_number(table: RuleTable) -> str:
    return "not finite" if table.rows else NOT_MEASURED


def _not_measured(table: RuleTable) -> Rule:
    return Rule(name=table.rule.name, passed=True, severity="info", observed=NOT_MEASURED, limit=table.rule.limit,
                meaning=table.rule.meaning)


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """The same document with what JSON cannot hold written as text."""
    text = json.dumps(document, default=str)
    return json.loads(text, parse_constant=str)
