"""The policy loader: shipped policies load, and a policy that could pass by accident does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from editors.digest import digest_document
from editors.errors import ConfigError, IntegrityError
from validations.policy import ALWAYS_MEASURED, FOLDER, LARGEST, PolicyRule, load_policy, policy_for, read_policy


def rule(**fields: Any) -> dict[str, Any]:
    return {"name": "efficacy.prob_success", "meaning": "m", "at_least": 0.9, "required": 1} | fields


def write(folder: Path, rules: list[dict[str, Any]], **fields: Any) -> Path:
    """A policy with the given rules, completed by a sound rule for each probe that has none."""
    named = {str(one.get("name", "")).partition(".")[0] for one in rules}
    rules = rules + [rule(name=f"{probe}.x") for probe in ALWAYS_MEASURED["update"] if probe not in named]
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump({"purpose": "update", "rules": rules} | fields))
    return path


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_policy_loads(path: Path) -> None:
    policy = load_policy(path)
    assert policy.purpose == path.stem
    assert len(policy.digest) == 64
    assert all(low <= high and low >= -LARGEST and high <= LARGEST for low, high in (one.bounds for one in policy.rules))


@pytest.mark.parametrize("probe", ALWAYS_MEASURED["forget"])
def test_a_policy_to_forget_looks_at_leaks_and_at_the_rest(tmp_path: Path, probe: str) -> None:
    rules = [rule(name=f"{other}.x") for other in ALWAYS_MEASURED["forget"]]
    path = tmp_path / "forget.yaml"
    path.write_text(yaml.safe_dump({"purpose": "forget", "rules": rules}))
    assert load_policy(path).purpose == "forget"
    path.write_text(yaml.safe_dump({"purpose": "forget", "rules": [one for one in rules if one["name"] != f"{probe}.x"]}))
    with pytest.raises(ConfigError, match=f"has no critical rule on {probe}, so it would release without looking at it"):
        load_policy(path)


def test_the_digest_names_the_thresholds(tmp_path: Path) -> None:
    lenient = load_policy(write(tmp_path, [rule(at_least=0.5)])).digest
    strict = load_policy(write(tmp_path, [rule(at_least=0.6)])).digest
    assert lenient != strict
    assert lenient == load_policy(write(tmp_path, [rule(at_least=0.5)])).digest


def test_an_unknown_purpose_names_the_known() -> None:
    with pytest.raises(ConfigError, match="no policy for the purpose 'enlighten'") as caught:
        policy_for("enlighten")
    assert "update" in caught.value.hint


@pytest.mark.parametrize(("fields", "message"), [
    ({"at_lest": 0.5}, "rule efficacy.prob_success.at_lest: unknown key, did you mean 'at_least'?"),
    ({"at_least": None}, "has no limit, so it could never fail"),
    ({"margin": 0.1}, "gives several limits"),
    ({"rise": 0.1}, "gives several limits"),
    ({"at_least": None, "rise": -0.1}, "rise: Input should be greater than or equal to 0"),
    ({"at_least": float("nan")}, "at_least: Input should be a finite number"),
    ({"at_least": float("inf")}, "at_least: Input should be a finite number"),
    ({"at_least": None, "margin": -0.1}, "margin: Input should be greater than or equal to 0"),
    ({"at_least": 0.9, "at_most": 0.1}, "can never pass"),
    ({"required": 0}, "may pass unmeasured: efficacy rules need `required: 1`"),
    ({"metric": "efficacy.teacher_forced"}, "teacher-forced accuracy, which is a diagnostic"),
    ({"aggregate": "median"}, "aggregate: Input should be 'mean', 'min', 'max', 'every' or 'count'"),
    ({"severity": "fatal"}, "severity: Input should be 'critical', 'warning' or 'info'"),
    ({"at_least": None, "margin": 0.1, "aggregate": "count"}, "counts rows"),
    ({"severity": "warning"}, "has no critical rule on efficacy"),
])
def test_a_rule_that_could_pass_by_accident_is_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_policy(write(tmp_path, [rule(**fields)]))
    assert message in caught.value.message


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, [rule(at_lest=1), rule(name="locality.kl", required=0)], purposes="update")
    with pytest.raises(ConfigError) as caught:
        load_policy(path)
    for part in ("at_lest: unknown key", "locality rules need", "purposes: unknown key, did you mean 'purpose'?"):
        assert part in caught.value.message


def test_a_rule_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"names the rule .efficacy\.prob_success. twice"):
        load_policy(write(tmp_path, [rule(), rule(at_least=0.1)]))


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [rule()])
    path.write_text(path.read_text() + "purpose: update\n")
    with pytest.raises(ConfigError, match="the key 'purpose' is given twice"):
        load_policy(path)


@pytest.mark.parametrize("content", ["", "rules: [", "- 1"])
def test_a_file_that_is_no_policy_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"the policy .* (is wrong|cannot be read)"):
        load_policy(path)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_policy(tmp_path / "none.yaml")


def test_only_the_named_channels_approve_themselves() -> None:
    policy = policy_for("update")
    assert policy.approves_itself("demo")
    assert not policy.approves_itself("production")


@pytest.mark.parametrize(("fields", "limit"), [
    ({"at_least": 0.95}, ">= 0.95"),
    ({"at_least": None, "at_most": 0.1}, "<= 0.1"),
    ({"at_least": 0.1, "at_most": 0.9}, ">= 0.1 and <= 0.9"),
    ({"at_least": None, "margin": 0.05}, ">= parent - 0.05"),
    ({"at_least": None, "margin": 0.0, "aggregate": "every"}, "each >= parent"),
    ({"at_least": None, "rise": 0.02}, "<= parent + 0.02"),
    ({"at_least": None, "rise": 0.0, "aggregate": "every"}, "each <= parent"),
    ({"at_least": None, "at_most_ratio": 1.02}, "<= 1.02 x parent"),
    ({"at_least": None, "severity": "info"}, "reported only"),
])
def test_limits_read_like_sentences(fields: dict[str, Any], limit: str) -> None:
    assert PolicyRule.model_validate(rule(**fields)).limit == limit


@pytest.mark.parametrize(("approval", "message"), [
    ({"approvers": ["ann", "Ann "]}, "approvers.1"),
    ({"approvers": ["ann", "ANN"]}, "approvers names somebody twice: ann, ANN"),
    ({"approvers": ["ann"], "required": 2}, "required is 2, and only 1 may approve: ann"),
    ({"required": 0}, "approval.required: Input should be greater than or equal to 1"),
    ({"expires_days": 0}, "approval.expires_days: Input should be greater than 0"),
    ({"auto_channels": ["demo"], "channels": {"demo": {"required": 2}}}, "'demo' is in auto_channels and in channels"),
    ({"approvers": ["ann"], "channels": {"main": {"required": 2}}}, "channels.main: required is 2, and only 1 may approve"),
    ({"approver": ["ann"]}, "approval.approver: unknown key, did you mean 'approvers'?"),
    ({"channels": {"main": {"require": 2}}}, "approval.channels.main.require: unknown key, did you mean 'required'?"),
])
def test_who_may_approve_is_read_strictly(tmp_path: Path, approval: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_policy(write(tmp_path, [], approval=approval))
    assert message in str(caught.value)


def test_a_policy_that_names_nobody_keeps_the_digest_it_had_before_there_were_names(tmp_path: Path) -> None:
    policy = load_policy(write(tmp_path, [], approval={"auto_channels": ["demo"]}))
    document = policy.model_dump(mode="json") | {"approval": {"auto_channels": ["demo"]}}
    assert policy.digest == digest_document(document)
    assert load_policy(write(tmp_path, [], approval={"auto_channels": ["demo"], "required": 2})).digest != policy.digest


def test_a_kept_policy_is_read_back_under_the_same_digest() -> None:
    policy = policy_for("update")
    assert read_policy(policy.content, "the policy").digest == policy.digest
    with pytest.raises(IntegrityError, match="the policy of 12 is no sound policy: rules: Field required"):
        read_policy(b'{"purpose": "update"}', "the policy of 12")
