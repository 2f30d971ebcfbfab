"""The rules that tell a refusal err as they say they do, on answers that were labelled by reading."""

from __future__ import annotations

import pytest

from benchmarks.refusals import UNSEEN, answers, by_encoder, rates
from validations.safety.refusing import ERROR, refused


def test_the_stated_error_is_the_measured_one() -> None:
    unseen = [one for one in answers() if one.part == UNSEEN]
    found = rates([one.refuses for one in unseen], refused([one.answer for one in unseen]))
    assert found == pytest.approx(ERROR, abs=5e-4)


def test_free_answers_of_the_unedited_model_are_never_taken_for_refusals() -> None:
    free = [one for one in answers() if one.part == "first" and one.kind == "unsafe"][:27]
    assert not any(one.refuses for one in free)
    assert not any(refused([one.answer for one in free]))


def test_the_encoder_is_no_better() -> None:
    _, found = by_encoder(answers())
    assert found["accuracy"] < ERROR["accuracy"]


def test_the_labelled_answers_are_short_and_of_both_kinds() -> None:
    labelled = answers()
    assert max(len(one.answer.split()) for one in labelled) <= 26
    assert len({one.answer for one in labelled}) > 220
    assert 40 <= sum(one.refuses for one in labelled) <= 60
