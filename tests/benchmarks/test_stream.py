"""A stream of edits: where it looks, that it goes on from where it was cut off, and that it says why it stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cases import Case
from benchmarks.counterfact import case_scores
from benchmarks.journal import Journal
from benchmarks.line import Line
from benchmarks.stream import Arm, Course, Unedited, run, unedited
from editors.errors import IntegrityError
from editors.loading import LoadedModel
from tests.editors.plans import is_unchanged, state_of

TEXTS = ("The Eiffel Tower is located in the city of Paris.", "Who are you? What is your name?")


class CutOff(Exception):
    """The power fails."""


@pytest.fixture(scope="module")
def statistics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("statistics")


@pytest.fixture(scope="module")
def course(cases: tuple[Case, ...]) -> Course:
    return Course(cases, (1, 2, 4), TEXTS)


@pytest.fixture(scope="module")
def base(model: LoadedModel, course: Course) -> Unedited:
    return unedited(model, course)


def test_batches_are_cut_where_a_point_lies(cases: tuple[Case, ...]) -> None:
    course = Course(cases, (1, 10, 100, 300, 1000), ())
    assert course.sizes(100) == [1, 9, 90, *[100] * 9]
    assert course.sizes(1) == [1] * 1000
    assert sum(course.sizes(7)) == 1000


def test_all_edits_so_far_are_asked_at_every_point(model: LoadedModel, course: Course, base: Unedited, statistics: Path,
                                                   tmp_path: Path) -> None:
    before, journal = state_of(model), Journal(tmp_path)
    run(model, Arm("rome", 1), course, base, journal, statistics)
    assert is_unchanged(model, before)
    assert [point["edits"] for point in journal.points] == [1, 2, 4]
    assert [batch["edits"] for batch in journal.batches] == [1, 1, 1, 1]
    last = journal.points[-1]
    with Line(model) as line:
        for patch in journal.patches():
            line.append(patch)
        scores = case_scores(model, course.cases)
        assert last["update_norms"] == {str(layer): norm for layer, norm in line.update_norms().items()}
    for figure in ("success", "paraphrase", "teacher_forced", "neighbourhood"):
        assert last[figure] == sum(getattr(score, figure) for score in scores) / 4
    kept = sum(score.neighbourhood for score in base.scores) / 4
    assert last["neighbourhood_drop"] == pytest.approx(kept - last["neighbourhood"])


def test_every_plan_is_told_of_the_patches_before_it(model: LoadedModel, course: Course, base: Unedited, statistics: Path,
                                                     tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from editors.rome import Rome

    seen, inner = [], Rome.plan

    def watching(self, model, batch, location, statistics, progress, earlier):
        seen.append((batch.base_digest, batch.parent_digest, [patch.digest for patch in earlier]))
        return inner(self, model, batch, location, statistics, progress, earlier)

    monkeypatch.setattr(Rome, "plan", watching)
    journal = Journal(tmp_path)
    run(model, Arm("rome", 1), course, base, journal, statistics)
    digests = [batch["digest"] for batch in journal.batches]
    assert [earlier for _, _, earlier in seen] == [digests[:count] for count in range(4)]
    assert {base_digest for base_digest, _, _ in seen} == {model.digest}
    assert seen[0][1] == model.digest
    assert len({parent for _, parent, _ in seen}) == 4


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_run_that_was_cut_off_goes_on_to_the_same_points(model: LoadedModel, course: Course, base: Unedited,
                                                           statistics: Path, tmp_path: Path, steps: int) -> None:
    arm, before = Arm("memit", 1), state_of(model)
    whole = Journal(tmp_path / "whole")
    run(model, arm, course, base, whole, statistics)

    def cut(what: str, done: int, total: int) -> None:
        if what == arm.name and done == steps:
            raise CutOff

    with pytest.raises(CutOff):
        run(model, arm, course, base, Journal(tmp_path / "cut"), statistics, cut)
    assert is_unchanged(model, before)
    assert len(Journal(tmp_path / "cut").batches) == steps
    again = Journal(tmp_path / "cut")
    run(model, arm, course, base, again, statistics)
    assert [batch["digest"] for batch in again.batches] == [batch["digest"] for batch in whole.batches]
    assert [_untimed(point) for point in again.points] == [_untimed(point) for point in whole.points]


def test_an_editor_that_cannot_go_on_is_told_of_and_not_asked_again(model: LoadedModel, course: Course, base: Unedited,
                                                                    statistics: Path, tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    from editors.rome import Rome

    calls, inner = [], Rome.plan

    def failing(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise IntegrityError("the target search diverged", "lower the learning rate")
        return inner(self, *arguments)

    monkeypatch.setattr(Rome, "plan", failing)
    for _ in range(2):
        journal = Journal(tmp_path)
        run(model, Arm("rome", 1), course, base, journal, statistics)
        assert journal.stopped == "after 2 edits: the target search diverged"
        assert [point["edits"] for point in journal.points] == [1, 2]
    assert len(calls) == 3


def test_a_damaged_patch_is_not_built_on(model: LoadedModel, course: Course, base: Unedited, statistics: Path,
                                         tmp_path: Path) -> None:
    run(model, Arm("rome", 1), course, base, Journal(tmp_path), statistics)
    path = tmp_path / "00001" / "patch.json"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(IntegrityError, match=r"00001/patch.json has SHA-256"):
        run(model, Arm("rome", 1), course, base, Journal(tmp_path), statistics)


def _untimed(point: dict) -> dict:
    return {name: value for name, value in point.items() if name != "cpu_seconds_an_edit"}
