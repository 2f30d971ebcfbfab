"""The bias data sets as published: counts, columns and alignment."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bias_sources import (
    crows_pairs_gender,
    dama_templates,
    dama_terms,
    debias_request,
    professions,
    stereoset_gender,
    winobias,
)
from tests.conftest import SHARED_DATA

pytestmark = [pytest.mark.paper, pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"no benchmark data at {SHARED_DATA}")]
DATA: Path = SHARED_DATA


def test_columns_of_professions_are_factual_then_stereotype() -> None:
    scores = {one.term: (one.factual, one.stereotype) for one in professions(DATA)}
    assert len(scores) == 320
    assert scores["actress"] == (-1.0, 0.0)
    assert scores["accountant"] == (0.0, 0.4)


def test_parts_of_dama_share_no_term() -> None:
    train, test = ({one.term for one in dama_terms(DATA, part)} for part in ("train", "test"))
    assert (len(train), len(test), train & test) == (219, 101, set())
    assert len(dama_templates(DATA)) == 11
    request = debias_request(dama_terms(DATA, "train"), dama_templates(DATA)[:8], dama_terms(DATA, "test"))
    assert "actress" in {one.term for one in (*request.definitional, *request.unseen_definitional)}
    assert len(request.terms) + len(request.definitional) == 219


@pytest.mark.parametrize("kind", [1, 2])
def test_forms_of_winobias_differ_in_the_pronoun_alone(kind: int) -> None:
    pairs = winobias(DATA, kind)
    assert len(pairs) > 380
    pronouns = {"he", "she", "him", "her", "his", "hers", "himself", "herself"}
    for pair in pairs:
        words = zip(pair.stereotype.split(), pair.opposite.split(), strict=True)
        changed = {word.strip(".,") for both in words if both[0] != both[1] for word in both}
        assert changed
        assert changed <= pronouns
    assert not any("[" in pair.stereotype for pair in pairs)


def test_winobias_has_two_types() -> None:
    with pytest.raises(ValueError, match="WinoBias has no type 3"):
        winobias(DATA, 3)


def test_pairs_of_stereoset_and_crows_pairs() -> None:
    assert len(stereoset_gender(DATA)) == 253
    assert all(one.unrelated for one in stereoset_gender(DATA, is_reverse=True))
    assert len(crows_pairs_gender(DATA)) == 262
