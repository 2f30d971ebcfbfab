"""Integrity of the candidate's files, and the refusal to compare models that were mixed up."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from editors.bake import bake
from editors.contract import EditBatch, Neighbour, UpdateRequest
from editors.errors import IntegrityError
from editors.loading import Checkpoint, load
from editors.patch import Dense, LowRank, Patch
from tests.validations.line import PLAIN, SETTINGS, Line, mean, of
from validations.comparing import compare
from validations.observation import Observation, ProbeSettings, Scope
from validations.observing import observe
from validations.probes.integrity import inspect


def test_integrity_of_an_honest_edit(line: Line) -> None:
    measured = line.measured()
    name = line.patch.parameters[0]
    assert [(row.prompt, row.candidate) for row in of(measured, "integrity.finite")] == [("-", 1.0), ("logits", 1.0)]
    assert [row.candidate for row in of(measured, "integrity.undeclared_changed")] == [0.0]
    assert [row.candidate for row in of(measured, "integrity.something_changed")] == [1.0]
    [norm] = of(measured, "integrity.update_relative_norm")[1:]
    edit = line.patch.edits[0]
    weight = load(line.parent).model.get_parameter(name)
    assert norm.prompt == name
    assert norm.candidate == pytest.approx(float(edit.delta(weight).norm() / weight.norm()), rel=1e-4)
    cumulated = {row.prompt: row for row in of(measured, "integrity.cumulative_relative_norm")}
    earlier = cumulated[line.earlier.parameters[0]]
    assert earlier.parent == earlier.candidate > 0
    assert (cumulated[name].parent, cumulated[name].candidate) == (0.0, pytest.approx(norm.candidate))
    [loss] = of(measured, "integrity.cast_loss")
    [noise] = of(measured, "integrity.cast_noise")
    assert abs(loss.candidate) < 1e-9 < noise.candidate < 1e-5
    assert [row.candidate for row in of(measured, "integrity.foreign_change")] == [0.0]


def test_integrity_names_what_the_patch_does_not_declare(line: Line, tmp_path: Path) -> None:
    stowaway = Patch((Dense("model.norm.weight", torch.ones(32)), *line.patch.edits))
    candidate = bake(line.parent, [stowaway], tmp_path / "stowaway")
    rows = inspect(line.base, line.parent, candidate, line.patch).rows
    assert [(row.prompt, row.candidate) for row in rows if row.metric == "integrity.undeclared_changed"] == [
        ("model.norm.weight", 1.0)]


def test_integrity_of_nothing_and_of_nan(line: Line, tmp_path: Path) -> None:
    rows = inspect(line.base, line.base, line.base, Patch(())).rows
    assert [row.candidate for row in rows if row.metric == "integrity.something_changed"] == [0.0]
    name = line.patch.parameters[0]
    broken = Patch((LowRank(name, torch.full((32, 1), torch.nan), torch.ones(1, 64)),))
    candidate = bake(line.parent, [broken], tmp_path / "broken")
    inspection = inspect(line.base, line.parent, candidate, broken)
    assert [(row.prompt, row.candidate) for row in inspection.rows if row.metric == "integrity.finite"] == [(name, 0.0)]
    after = observe(load(candidate), line.scope, reference=line.before)
    again = Observation.model_validate_json(after.model_dump_json())
    measured = compare(line.before, again, line.batch, line.scope, inspection)
    assert [row.candidate for row in of(measured, "integrity.finite")] == [0.0, 0.0]
    assert all(math.isnan(row.candidate) for row in of(measured, "locality.kl"))
    assert math.isnan(of(measured, "perplexity.held_out")[0].candidate)
    assert {row.candidate for row in of(measured, "efficacy.prob_success")} == {0.0}


def test_erasing_and_noise_are_told_apart_in_half_precision(line: Line, tmp_path: Path) -> None:
    half = _halved(line, tmp_path / "half")
    strong = line.edit(1, 1e-2, seed=3)
    rows = {row.metric: row.candidate for row in inspect(half, half, bake(half, [strong], tmp_path / "strong"), strong).rows}
    assert abs(rows["integrity.cast_loss"]) < 0.01 < rows["integrity.cast_noise"]
    assert rows["integrity.foreign_change"] == 0.0
    weak = line.edit(1, 1e-6, seed=3)
    with pytest.raises(IntegrityError, match=r"rounding to bfloat16 erases 9\d\.\d% of what patch"):
        bake(half, [weak], tmp_path / "eaten")
    [loss] = [row for row in inspect(half, half, half, weak).rows if row.metric == "integrity.cast_loss"]
    assert loss.candidate == pytest.approx(1.0)


def test_a_change_that_is_not_the_patchs_is_seen(line: Line, tmp_path: Path) -> None:
    other = line.edit(1, 0.05, seed=8)
    candidate = bake(line.parent, [line.patch, other], tmp_path / "more")
    rows = inspect(line.base, line.parent, candidate, line.patch).rows
    [foreign] = [row for row in rows if row.metric == "integrity.foreign_change"]
    weight = load(line.parent).model.get_parameter(foreign.prompt)
    expected = float(other.edits[0].delta(weight).norm() / line.patch.edits[0].delta(weight).norm())
    assert foreign.candidate == pytest.approx(expected, rel=1e-4)


def _halved(line: Line, folder: Path) -> Checkpoint:
    model = load(line.base).model
    model.bfloat16().save_pretrained(folder)
    model.float()
    for name in line.base.carried_files:
        if not (folder / name).exists():
            (folder / name).write_bytes((line.base.folder / name).read_bytes())
    return Checkpoint(folder)


def test_mixed_up_models_are_refused(line: Line) -> None:
    same = line.before.model_copy(update={"reference_digest": line.before.model_digest})
    with pytest.raises(IntegrityError, match="the candidate is the parent"):
        compare(line.before, same, line.batch, line.scope)
    with pytest.raises(IntegrityError, match=r"the candidate that was asked is .*, its files are"):
        compare(line.before, same, line.batch, line.scope, line.inspection)
    stale = line.before.model_copy(update={"model_digest": line.base.digest})
    with pytest.raises(IntegrityError, match="the baseline is"):
        compare(stale, line.after, line.batch, line.scope, line.inspection)
    other = line.after.model_copy(update={"reference_digest": line.base.digest})
    with pytest.raises(IntegrityError, match="the candidate's reference is"):
        compare(line.before, other, line.batch, line.scope, line.inspection)
    with pytest.raises(IntegrityError, match="did not answer the same questions"):
        compare(line.before, line.after.model_copy(update={"replies": line.after.replies[1:]}), line.batch, line.scope,
                line.inspection)
    with pytest.raises(IntegrityError, match="answers other questions"):
        observe(load(line.candidate), Scope.of([PLAIN], settings=SETTINGS), reference=line.before)


def test_an_edit_that_changed_nothing_reaches_the_gate_as_such(line: Line) -> None:
    nothing = inspect(line.base, line.parent, line.parent, Patch(()))
    same = observe(load(line.parent), line.scope, reference=line.before)
    measured = compare(line.before, same, line.batch, line.scope, nothing)
    assert [row.candidate for row in of(measured, "integrity.something_changed")] == [0.0]
    assert {row.candidate for row in of(measured, "locality.same_answer")} == {1.0}
    assert max(row.candidate for row in of(measured, "locality.kl")) < 1e-6
    [perplexity] = of(measured, "perplexity.held_out")
    assert perplexity.candidate == pytest.approx(perplexity.parent, rel=1e-6)


@pytest.mark.model
def test_on_the_packaged_model_a_strong_edit_is_seen_by_every_probe_of_the_rest(
        packaged_model: Checkpoint, tmp_path: Path) -> None:
    request = UpdateRequest(id="james", prompt="{} plays the sport of", subject="LeBron James", target="basketball",
                            neighbours=(Neighbour(prompt="Roger Federer plays the sport of", answer="tennis"),))
    scope = Scope.of([request], settings=ProbeSettings(held_out_tokens=200, same_tokens=4))
    batch = EditBatch(purpose="update", base_digest=packaged_model.digest, parent_digest=packaged_model.digest,
                      requests=(request,))
    before = observe(load(packaged_model), scope)
    draw = torch.Generator().manual_seed(0)
    left = torch.randn(packaged_model.anatomy.hidden_size, 4, generator=draw) * 0.4
    right = torch.randn(4, packaged_model.anatomy.inner_size, generator=draw)
    patch = Patch((LowRank(packaged_model.anatomy.mlp_output_parameter(6), left, right),))
    candidate = bake(packaged_model, [patch], tmp_path / "strong")
    after = observe(load(candidate), scope, reference=before)
    measured = compare(before, after, batch, scope, inspect(packaged_model, packaged_model, candidate, patch))
    assert mean(measured, "integrity.update_relative_norm") > 0.25
    assert mean(measured, "locality.same_answer") < 0.6
    assert mean(measured, "locality.kl") > 0.25
    [perplexity] = of(measured, "perplexity.held_out")
    assert perplexity.parent is not None
    assert 5 < perplexity.parent < 200
    assert perplexity.candidate > 1.5 * perplexity.parent
