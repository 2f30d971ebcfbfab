"""The gate fails closed: every way in which Great Expectations passes by accident, and every rule's own failure."""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd
import pytest

from editors.contract import EditBatch
from editors.errors import ConfigError
from tests.validations.measured import GOOD, batch, measured, request
from validations import gate
from validations.contract import Measurement, Measurements, Rule, Verdict
from validations.gate import Check, checks_of, expects, frame_of, judge
from validations.policy import Policy, PolicyRule, policy_for
from validations.tables import RuleTable, rule_table

NAN, INFINITY = math.nan, math.inf
POLICY = policy_for("update")
EARLIER = (request("louvre"),)


def staying(*values: tuple[str, float]) -> tuple[EditBatch, Measurements]:
    """Measurements of a removal after which two edits stay; `values` spoil the candidate's efficacy by request."""
    of = batch().model_copy(update={"purpose": "removal"})
    found = measured(of, spoilt={("efficacy.prob_success", name): value for name, value in values})
    rows = [row.model_copy(update={"parent": 1.0}) if row.probe in ("efficacy", "paraphrase") else row for row in found.rows
            if row.probe != "history"]
    return of, found.model_copy(update={"rows": tuple(rows)})


def test_a_removal_is_held_to_every_edit_that_stays() -> None:
    policy = policy_for("removal")
    of, good = staying()
    assert judge(good, policy, of).verdict.passed
    of, lost = staying(("pisa", 0.0))
    rule = rule_named(judge(lost, policy, of).verdict, "efficacy.prob_success")
    assert (rule.passed, rule.severity, rule.blame) == (False, "critical", ("pisa",))
    with pytest.raises(ConfigError, match="the policy is for 'update', the batch for 'removal'"):
        judge(good, policy_for("update"), of)


def only(*names: str) -> Policy:
    """The shipped policy cut down to some rules, for speed."""
    return POLICY.model_copy(update={"rules": tuple(rule for rule in POLICY.rules if rule.name in names)})


def rule_named(verdict: Verdict, name: str) -> Rule:
    return next(rule for rule in verdict.rules if rule.name == name)


def table(values: list[float], promised: dict[str, int] | None = None, **fields: Any) -> RuleTable:
    """A table of one row a request (r0, r1, ...), its rule on `efficacy.x` at least 0.5 unless told otherwise."""
    limit = {} if {"at_most", "margin", "rise", "at_most_ratio"} & fields.keys() else {"at_least": 0.5}
    rule = PolicyRule.model_validate({"name": "efficacy.x", "meaning": "m", "required": 1} | limit | fields)
    rows = [Measurement(request=f"r{number}", probe="efficacy", metric="efficacy.x", prompt="p", parent=1.0,
                        candidate=value) for number, value in enumerate(values)]
    return rule_table(rule, rows, promised or {})


def great_expectations_passes(judged: RuleTable) -> bool:
    """Its answer alone, without this house's second reading."""
    return expects(frame_of(judged), checks_of(judged))[0]


def test_a_good_edit_passes() -> None:
    judged = judge(measured(batch(), EARLIER), POLICY, batch(), earlier=EARLIER)
    assert judged.verdict.passed, [rule for rule in judged.verdict.rules if not rule.passed]
    assert [rule.name for rule in judged.verdict.rules] == ["baseline.digests", *(rule.name for rule in POLICY.rules)]
    assert all(rule.passed and not rule.blame for rule in judged.verdict.rules)
    assert judged.verdict.policy_digest == POLICY.digest
    assert judged.verdict.batch_digest == batch().digest


def test_its_evidence_is_json_and_holds_no_text_of_requests() -> None:
    judged = judge(measured(batch(), spoilt={("efficacy.prob_success", "pisa"): NAN}),
                   only("efficacy.prob_success"), batch())
    text = json.dumps(judged.evidence, allow_nan=False)
    assert judged.evidence["efficacy.prob_success"]["success"] is False
    assert "located in" not in text
    assert "row_condition" not in text


@pytest.mark.parametrize(("aggregate", "values"), [
    ("every", [1.0, NAN, 1.0]), ("every", [NAN, NAN]), ("min", [1.0, NAN]), ("mean", [1.0, NAN]), ("mean", [NAN, NAN]),
    ("max", [1.0, NAN]), ("count", [1.0, NAN]), ("every", []), ("min", []), ("mean", []), ("count", []),
    ("every", [1.0, INFINITY]), ("mean", [1.0, INFINITY]), ("max", [1.0, -INFINITY]), ("min", [1.0, INFINITY]),
])
def test_missing_and_infinite_values_never_pass(aggregate: str, values: list[float]) -> None:
    judged = table(values, aggregate=aggregate)
    assert not great_expectations_passes(judged)
    assert not judged.holds
    assert great_expectations_passes(table([1.0, 1.0], aggregate=aggregate))
    assert table([1.0, 1.0], aggregate=aggregate).holds


@pytest.mark.parametrize("promised", [{"r0": 1, "r1": 1, "r2": 1}, {"r0": 2, "r1": 1}, {"absent": 1}])
def test_a_promised_row_that_is_missing_never_passes(promised: dict[str, int]) -> None:
    judged = table([1.0, 1.0], promised)
    assert not great_expectations_passes(judged)
    assert not judged.holds


def test_rows_of_one_request_do_not_stand_in_for_another() -> None:
    rule = PolicyRule(name="efficacy.x", meaning="m", required=1, at_least=0.5)
    rows = [Measurement(request="r0", probe="efficacy", metric="efficacy.x", prompt=str(number), parent=None, candidate=1)
            for number in range(2)]
    judged = rule_table(rule, rows, {"r0": 1, "r1": 1})
    assert not great_expectations_passes(judged)
    assert judged.blame() == ("r1",)


def test_a_suite_without_expectations_is_refused() -> None:
    with pytest.raises(ConfigError, match="came without expectations"):
        expects(pd.DataFrame({"judged": [1.0]}), [])


@pytest.mark.parametrize("bound", [None, NAN, INFINITY])
def test_a_bound_that_would_be_dropped_is_refused(bound: float | None) -> None:
    check = Check("ExpectColumnMeanToBeBetween", {"column": "judged", "min_value": bound, "max_value": 1.0})
    with pytest.raises(ConfigError, match=f"got min_value={bound}"):
        expects(pd.DataFrame({"row": ["a"], "judged": [-9.0]}), [check])


def test_a_missing_column_does_not_pass() -> None:
    check = Check("ExpectColumnMeanToBeBetween", {"column": "absent", "min_value": 0.0, "max_value": 1.0})
    assert expects(pd.DataFrame({"row": ["a"], "judged": [0.5]}), [check])[0] is False


def test_every_rule_has_both_bounds_a_row_count_and_a_null_check() -> None:
    for rule in POLICY.rules:
        checks = checks_of(rule_table(rule, [], {}))
        kinds = [check.expectation for check in checks]
        assert kinds[:3] == ["ExpectTableRowCountToBeBetween", "ExpectColumnValuesToNotBeNull",
                             "ExpectColumnValuesToBeBetween"]
        for check in checks:
            if "min_value" in check.arguments:
                assert all(math.isfinite(check.arguments[bound]) for bound in ("min_value", "max_value"))
        assert checks[0].arguments["min_value"] >= 1


def test_great_expectations_alone_cannot_pass_what_this_house_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = measured(batch(), spoilt={("efficacy.prob_success", "*"): 0.0})
    real = gate.expects
    monkeypatch.setattr(gate, "expects", lambda *arguments: (True, real(*arguments)[1]))
    assert not judge(bad, only("efficacy.prob_success"), batch()).verdict.passed


def test_this_house_alone_cannot_pass_what_great_expectations_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RuleTable, "holds", True)
    bad = measured(batch(), spoilt={("efficacy.prob_success", "*"): 0.0})
    assert not judge(bad, only("efficacy.prob_success"), batch()).verdict.passed


@pytest.mark.parametrize("metric", [metric for metric in GOOD if metric != "efficacy.teacher_forced"])
def test_a_metric_that_was_not_measured_fails_its_rule(metric: str) -> None:
    judging = next(rule for rule in POLICY.rules if metric in rule.metrics)
    policy = only(judging.name, "integrity.finite", "efficacy.prob_success")
    verdict = judge(measured(batch(), EARLIER, without=metric), policy, batch(), earlier=EARLIER).verdict
    failed = [rule for rule in verdict.rules if not rule.passed]
    assert [rule.name for rule in failed] == [judging.name]
    assert failed[0].observed == "not measured"
    assert verdict.passed == (judging.severity != "critical")


def test_what_no_request_gives_is_reported_and_not_failed() -> None:
    bare = batch(request("eiffel", paraphrases=(), neighbours=(), implications=()))
    good = measured(bare)
    rows = tuple(row for row in good.rows if row.probe not in ("paraphrase", "neighbourhood", "portability"))
    verdict = judge(good.model_copy(update={"rows": rows}), POLICY, bare).verdict
    assert verdict.passed
    for name in ("paraphrase.answer", "neighbourhood.prob_success", "portability.prob_success", "history.prob_success"):
        rule = rule_named(verdict, name)
        assert (rule.severity, rule.observed, rule.count) == ("info", "not measured", 0)


@pytest.mark.parametrize(("digests", "claim"), [
    ({"candidate_digest": "parent"}, "candidate differs from parent"),
    ({"parent_digest": "stale"}, "baseline is the parent"),
    ({"batch_digest": "other"}, "measured for this batch"),
])
def test_the_wrong_things_compared_are_refused(digests: dict[str, str], claim: str) -> None:
    verdict = judge(measured(batch(), **digests), only("efficacy.prob_success"), batch()).verdict
    assert not verdict.passed
    assert [(rule.name, rule.blame) for rule in verdict.rules if not rule.passed] == [("baseline.digests", (claim,))]


def test_another_candidate_than_the_one_on_disk_is_refused() -> None:
    policy = only("efficacy.prob_success")
    assert judge(measured(batch()), policy, batch(), candidate_digest="candidate").verdict.passed
    verdict = judge(measured(batch()), policy, batch(), candidate_digest="another").verdict
    assert rule_named(verdict, "baseline.digests").blame == ("candidate is the one on disk",)


def test_a_failed_warning_is_shown_and_does_not_refuse() -> None:
    policy = only("neighbourhood.answer", "efficacy.prob_success")
    verdict = judge(measured(batch(), spoilt={("neighbourhood.generate_exact", "*"): 0.0}), policy, batch()).verdict
    warned = rule_named(verdict, "neighbourhood.answer")
    assert (warned.passed, warned.severity, verdict.passed) == (False, "warning", True)


def test_the_blamed_are_named_worst_first() -> None:
    requests = tuple(request(name, paraphrases=(f"{name} 1", f"{name} 2")) for name in ("a", "b", "c", "d"))
    of = batch(*requests)
    spoilt = {("locality.kl", "c"): 0.9, ("locality.kl", "a"): 2.0, ("locality.kl", "d"): NAN}
    rule = rule_named(judge(measured(of, spoilt=spoilt), only("locality.kl"), of).verdict, "locality.kl")
    assert rule.blame == ("d", "a", "c")
    assert rule.observed == "not finite"


def test_a_margin_is_held_against_the_parent() -> None:
    low, high = table([0.95], margin=0.05), table([0.94], margin=0.05)
    assert (low.holds, great_expectations_passes(low)) == (True, True)
    assert (high.holds, great_expectations_passes(high)) == (False, False)
    assert (low.observed, low.parent) == (0.95, 1.0)


def test_a_rise_is_held_against_the_parent() -> None:
    low, high = table([1.02, 0.5], rise=0.02, aggregate="every"), table([1.03], rise=0.02)
    assert (low.holds, great_expectations_passes(low)) == (True, True)
    assert (high.holds, great_expectations_passes(high)) == (False, False)
    assert high.blame() == ("r0",)


@pytest.mark.parametrize("limit", ["margin", "rise"])
def test_a_change_without_a_parent_never_passes(limit: str) -> None:
    rule = PolicyRule.model_validate({"name": "fluency.x", "meaning": "m", limit: 0.5})
    rows = [Measurement(request="-", probe="fluency", metric="fluency.x", prompt="p", parent=None, candidate=0.1)]
    judged = rule_table(rule, rows, {})
    assert not judged.holds
    assert not great_expectations_passes(judged)


@pytest.mark.parametrize(("parent", "candidate", "passes"), [(20.0, 20.4, True), (20.0, 20.5, False), (0.0, 1.0, False),
                                                           (NAN, 1.0, False), (INFINITY, 1.0, False)])
def test_a_ratio_is_held_against_the_parent(parent: float, candidate: float, passes: bool) -> None:
    rule = PolicyRule(name="perplexity.held_out", meaning="m", at_most_ratio=1.02, required=1)
    rows = [Measurement(request="-", probe="perplexity", metric=rule.name, prompt="p", parent=parent, candidate=candidate)]
    judged = rule_table(rule, rows, {})
    assert judged.holds == great_expectations_passes(judged) == passes


@pytest.mark.parametrize(("parent", "candidate", "passes"), [(0.4, 0.36, True), (0.4, 0.35, False), (0.4, 0.9, True),
                                                           (0.4, -0.4, False), (-0.4, -0.4, False), (0.4, NAN, False)])
def test_what_is_to_be_kept_is_held_to_a_share_of_the_parents(parent: float, candidate: float, passes: bool) -> None:
    rule = PolicyRule(name="factual.slope", meaning="m", at_least_ratio=0.9)
    rows = [Measurement(request="a", probe="factual", metric=rule.name, prompt="p", parent=parent, candidate=candidate)]
    judged = rule_table(rule, rows, {})
    assert judged.holds == great_expectations_passes(judged) == passes
    assert rule.limit == ">= 0.9 x parent"


def test_one_lost_earlier_edit_refuses_a_long_line() -> None:
    earlier = tuple(request(f"old{number}") for number in range(30))
    lost = measured(batch(), earlier, spoilt={("history.prob_success", "old7"): 0.0})
    policy = only("history.prob_success", "history.answer", "efficacy.prob_success")
    verdict = judge(lost, policy, batch(), earlier=earlier).verdict
    assert [(rule.name, rule.blame) for rule in verdict.rules if not rule.passed] == [("history.prob_success", ("old7",))]


def test_an_earlier_edit_that_this_batch_replaces_is_not_lost() -> None:
    earlier = (request("old", subject="The eiffel tower", target="Lyon"), request("older"))
    measurements = measured(batch(), (earlier[1],))
    verdict = judge(measurements, only("history.answer", "efficacy.answer"), batch(), earlier=earlier).verdict
    assert verdict.passed
    assert rule_named(verdict, "history.answer").count == 1


def test_accepted_words_decide_where_a_request_gives_them() -> None:
    of = batch(request("chat", accept=("Rome",)), request("plain"))
    good = measured(of, spoilt={("efficacy.generate_exact", "chat"): 0.0})
    accepted = Measurement(request="chat", probe="efficacy", metric="efficacy.generate_accept", prompt="efficacy-0",
                           parent=0.0, candidate=1.0)
    policy = only("efficacy.answer")
    verdict = judge(good.model_copy(update={"rows": (*good.rows, accepted)}), policy, of).verdict
    assert rule_named(verdict, "efficacy.answer").observed == 1.0
    assert rule_named(judge(good, policy, of).verdict, "efficacy.answer").blame == ("chat",)


def test_a_policy_for_another_purpose_is_refused() -> None:
    other = POLICY.model_copy(update={"purpose": "forget"})
    with pytest.raises(ConfigError, match="the policy is for 'forget', the batch for 'update'"):
        judge(measured(batch()), other, batch())


def test_the_same_measurements_give_the_same_verdict() -> None:
    first, second = (judge(measured(batch()), only("efficacy.answer"), batch()).verdict for _ in range(2))
    assert first.digest == second.digest
