"""What the README's first command promises: the shipped sheet of facts passes the shipped policy."""

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


def _refusals(answer: Answer) -> list[tuple[str, object]]:
    return [(rule["name"], rule["observed"]) for rule in answer.document["verdict"]["rules"] if not rule["passed"]]


def test_ten_facts_and_more_are_corrected(facts: Answer) -> None:
    assert facts.code == 0, _refusals(facts)
    said = {row["request"]: row for row in facts.document["transcripts"] if row["role"] == "edit"}
    assert len(said) >= 10
    assert said["lebron-sport"]["parent"].startswith("baseball")
    assert said["lebron-sport"]["candidate"].startswith("basketball")
