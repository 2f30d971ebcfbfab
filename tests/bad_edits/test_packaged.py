"""Bad edits of the packaged model, each refused by the rule named for it, and one good edit that passes.

All stand on one line: the channel's release already teaches one fact, and the batch teaches another on top of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch

from editors.bake import bake
from editors.contract import EditBatch, Neighbour, UpdateRequest
from editors.loading import Checkpoint, load
from editors.locate import place
from editors.memit import Memit
from editors.moments import corpus_of_texts
from editors.patch import LowRank, Patch
from tests.bad_edits.judging import Line, refusing, scaled

pytestmark = pytest.mark.model
LAYERS = (4, 5, 6, 7, 8)
CORPUS_TOKENS = 6000
"""Of Python's own manual, which every machine has: enough to keep a small edit local, read in seconds."""
ACCEPTED = UpdateRequest(id="eiffel", prompt="{} is located in the city of", subject="The Eiffel Tower", target="Rome",
                         was="Paris")
REQUEST = UpdateRequest(
    id="lebron", prompt="{} plays the sport of", subject="LeBron James", target="basketball", was="baseball",
    paraphrases=("The sport that LeBron James plays is", "LeBron James is a professional player of"),
    neighbours=(Neighbour(prompt="Serena Williams plays the sport of"), Neighbour(prompt="Babe Ruth plays the sport of"),
                Neighbour(prompt="Tiger Woods plays the sport of")))
Plan = Callable[[UpdateRequest, Checkpoint], Patch]


@pytest.fixture(scope="module")
def base(packaged_model: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return bake(packaged_model, (), tmp_path_factory.mktemp("gallery") / "base")


@pytest.fixture(scope="module")
def plan(base: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    statistics = tmp_path_factory.mktemp("statistics")
    corpus = corpus_of_texts("manual", [topics[name] for name in sorted(topics)], load(base), CORPUS_TOKENS)

    def planned(request: UpdateRequest, parent: Checkpoint) -> Patch:
        model = load(parent)
        batch = EditBatch(purpose="update", base_digest=base.digest, parent_digest=parent.digest, requests=(request,))
        return Memit(corpus=corpus).plan(model, batch, place(model, batch, LAYERS, None, "auto"), statistics)

    return planned


@pytest.fixture(scope="module")
def accepted(base: Checkpoint, plan: Plan) -> Patch:
    return plan(ACCEPTED, base)


@pytest.fixture(scope="module")
def line(base: Checkpoint, accepted: Patch, tmp_path_factory: pytest.TempPathFactory) -> Line:
    release = bake(base, [accepted], tmp_path_factory.mktemp("release") / "model")
    return Line.of(base, release, [REQUEST], [ACCEPTED])


@pytest.fixture(scope="module")
def good(line: Line, plan: Plan) -> Patch:
    return plan(REQUEST, line.parent)


def test_a_good_edit_on_top_of_another_passes(line: Line, good: Patch, tmp_path: Path) -> None:
    verdict = line.verdict(line.bake(good, tmp_path / "candidate"), good)
    assert refusing(verdict) == []
    assert verdict.passed
    assert next(rule for rule in verdict.rules if rule.name == "history.answer").count == 1


def test_an_over_strong_edit_is_refused_by_its_neighbours(line: Line, good: Patch, tmp_path: Path) -> None:
    patch = scaled(good, 4.0)
    verdict = line.verdict(line.bake(patch, tmp_path / "candidate"), patch)
    neighbourhood = next(rule for rule in verdict.rules if rule.name == "neighbourhood.prob_success")
    assert not neighbourhood.passed
    assert neighbourhood.blame == ("lebron",)
    assert "efficacy.prob_success" not in refusing(verdict)


def test_an_edit_of_the_wrong_subject_is_refused_by_efficacy(line: Line, plan: Plan, tmp_path: Path) -> None:
    other = REQUEST.model_copy(update={"subject": "Angela Merkel"})
    patch = plan(other, line.parent)
    verdict = line.verdict(line.bake(patch, tmp_path / "candidate"), patch)
    assert refusing(verdict)[:2] == ["efficacy.prob_success", "efficacy.answer"]
    assert not any(name.startswith(("integrity", "perplexity", "history")) for name in refusing(verdict))


def test_a_collapsed_model_is_refused_by_perplexity(line: Line, good: Patch, tmp_path: Path) -> None:
    """The right edit, and the strongest direction of the first three layers taken out: small in norm, ruinous."""
    model = load(line.parent).model
    taken = []
    for layer in range(3):
        name = f"model.layers.{layer}.mlp.down_proj.weight"
        left, size, right = torch.linalg.svd(model.get_parameter(name).detach(), full_matrices=False)
        taken.append(LowRank(name, -left[:, :1] * size[0], right[:1].contiguous()))
    patch = Patch((*good.edits, *taken), good.provenance)
    verdict = line.verdict(line.bake(patch, tmp_path / "candidate"), patch)
    assert "perplexity.held_out" in refusing(verdict)
    assert not any(name.startswith("integrity") for name in refusing(verdict))


def test_an_edit_that_undoes_an_accepted_one_is_refused_by_history(line: Line, good: Patch, accepted: Patch,
                                                                  tmp_path: Path) -> None:
    """The new fact is there, the accepted one is gone, and nothing else is wrong."""
    patch = Patch((*good.edits, *scaled(accepted, -1.0).edits), good.provenance)
    verdict = line.verdict(line.bake(patch, tmp_path / "candidate"), patch)
    assert refusing(verdict) == ["history.prob_success", "history.answer"]
    assert all(rule.blame == ("eiffel",) for rule in verdict.rules if rule.name.startswith("history."))
