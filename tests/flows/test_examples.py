"""What the README's first command promises: both shipped sheets pass the shipped policy, one on top of the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows.walk import ROOT, Answer, Walk

pytestmark = [pytest.mark.flow, pytest.mark.model]


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Walk:
    home = tmp_path_factory.mktemp("examples")
    (model_cache / "statistics").mkdir(parents=True, exist_ok=True)
    # converting the model and sampling its own text take minutes; every run on this machine shares them
    (home / "cache").symlink_to(model_cache)
    return Walk(home)


@pytest.fixture(scope="module")
def facts(walk: Walk) -> Answer:
    return walk.run("edit", str(ROOT / "examples" / "facts.yaml"))


@pytest.fixture(scope="module")
def identity(walk: Walk, facts: Answer) -> Answer:
    return walk.run("edit", str(ROOT / "examples" / "identity.yaml"))


def _refusals(answer: Answer) -> list[tuple[str, object]]:
    return [(rule["name"], rule["observed"]) for rule in answer.document["verdict"]["rules"] if not rule["passed"]]


def test_ten_facts_and_more_are_corrected(facts: Answer) -> None:
    assert facts.code == 0, _refusals(facts)
    said = {row["request"]: row for row in facts.document["transcripts"] if row["role"] == "edit"}
    assert len(said) >= 10
    assert said["lebron-sport"]["parent"].startswith("baseball")
    assert said["lebron-sport"]["candidate"].startswith("basketball")


def test_the_model_says_who_it_is_where_nobody_taught_it(identity: Answer) -> None:
    assert identity.code == 0, _refusals(identity)
    rows = {row["prompt"]: row for row in identity.document["transcripts"]}
    assert "SmolLM" not in rows["What's your name?"]["parent"]
    assert "SmolLM" in rows["What's your name?"]["candidate"]
    assert "SmolLM" in rows["Tell me your name"]["candidate"]
    assert "Hugging Face" in rows["Which company built you?"]["candidate"]
    unseen = [row for row in rows.values() if row["role"] == "paraphrase"]
    right = [row for row in unseen if "SmolLM" in row["candidate"] or "Hugging Face" in row["candidate"]]
    assert len(unseen) >= 10
    assert len(right) >= 0.8 * len(unseen)


def test_the_second_sheet_stands_on_the_first(facts: Answer, identity: Answer) -> None:
    assert identity.document["parent"] == facts.document["version"]
    kept = [rule for rule in identity.document["verdict"]["rules"] if rule["name"].startswith("history.")]
    assert [rule["passed"] for rule in kept] == [True, True]
    assert kept[0]["count"] == facts.document["request_count"]
