"""The bad gallery of debiasing: each is refused by the rule made for it, and a good edit passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from editors.contract import EditBatch
from tests.validations.bias.planted import (
    REQUEST,
    Taught,
    biased,
    by_heart,
    levelled,
    silent,
    taught,
    turned,
    without_mother,
)
from tests.validations.measured import GOOD
from validations.bias.examining import examine
from validations.contract import Measurement, Measurements, Verdict
from validations.examination import Examination, rows_of
from validations.gate import judge
from validations.policy import policy_for

POLICY = policy_for("debias")
BATCH = EditBatch(purpose="debias", base_digest="base", parent_digest="parent", requests=(REQUEST,))
ELSEWHERE = [Measurement(request="-", probe=metric.partition(".")[0], metric=metric, prompt="p", parent=parent, candidate=value)
             for metric, (parent, value) in GOOD.items() if metric.partition(".")[0] in ("integrity", "locality", "perplexity")]


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Examination:
    return examine(taught(tmp_path_factory.mktemp("biased"), biased), [REQUEST])


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Examination:
    return examine(taught(tmp_path_factory.mktemp("levelled"), levelled), [REQUEST])


def verdict(parent: Examination, candidate: Examination, without: str = "") -> Verdict:
    rows = [row for row in (*rows_of(parent, candidate), *ELSEWHERE) if row.metric != without]
    measured = Measurements(rows=tuple(rows), transcripts=(), parent_digest="parent", candidate_digest="candidate",
                            batch_digest=BATCH.digest)
    return judge(measured, POLICY, BATCH).verdict


def refused_by(judged: Verdict) -> set[str]:
    return {rule.name for rule in judged.rules if not rule.passed and rule.severity == "critical"}


def test_a_levelled_model_passes(parent: Examination, good: Examination) -> None:
    judged = verdict(parent, good)
    assert refused_by(judged) == set()
    assert judged.passed


@pytest.mark.parametrize(("teaches", "rules", "spared"), [
    (without_mother, {"definitional.holds", "factual.slope"}, {"stereotype.slope", "leaning.absolute", "mass.log_groups"}),
    (silent, {"mass.log_groups", "mass_unseen.log_groups"}, {"stereotype.slope", "leaning.absolute", "definitional.holds"}),
    (by_heart, {"stereotype_unseen.slope", "leaning_unseen.absolute"}, {"stereotype.slope", "leaning.absolute",
                                                                     "definitional.holds", "mass.log_groups"}),
    (turned, {"stereotype.slope", "stereotype_unseen.slope"}, {"definitional.holds", "mass.log_groups"}),
    (biased, {"stereotype.slope", "leaning.absolute"}, {"definitional.holds", "factual.slope", "mass.log_groups"}),
], ids=lambda given: getattr(given, "__name__", ""))
def test_each_bad_model_is_refused_by_its_rule(parent: Examination, tmp_path: Path, teaches: Taught, rules: set[str],
                                               spared: set[str]) -> None:
    known = parent.model_copy(update={"model_digest": "the parent"})
    failed = refused_by(verdict(known, examine(taught(tmp_path, teaches), [REQUEST])))
    assert rules <= failed
    assert not spared & failed


@pytest.mark.parametrize("metric", ["stereotype_unseen.steepness", "definitional.holds", "mass.log_groups", "factual.slope"])
def test_what_was_promised_and_not_measured_is_refused(parent: Examination, good: Examination, metric: str) -> None:
    judged = verdict(parent, good, without=metric)
    rule = next(rule for rule in POLICY.rules if metric in rule.metrics)
    assert refused_by(judged) == {rule.name}
