"""Readers of the published sets, on files of their form and on the sets themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.bias_sources import crows_pairs, professions, stereoset, winobias
from editors.debias_request import Pair, Term
from editors.errors import ConfigError


def test_professions_name_what_is_meant_before_what_is_thought(tmp_path: Path) -> None:
    (tmp_path / "dama_professions.json").write_text('[["accountant", 0.0, 0.4], ["cab_driver", 0.1, 0.8]]')
    (tmp_path / "dama_train.json").write_text('[{"subject": "The cab driver"}]')
    accountant, driver = professions(tmp_path)
    assert accountant == Term(term="accountant", stereotype=0.4, factual=0.0)
    assert driver == Term(term="cab driver", stereotype=0.8, factual=0.1)
    assert professions(tmp_path, "train") == (driver,)
    assert professions(tmp_path, "test") == (accountant,)


def test_winobias_loses_numbers_and_brackets(tmp_path: Path) -> None:
    (tmp_path / "winobias").mkdir()
    for side, word in (("pro", "he"), ("anti", "she")):
        (tmp_path / "winobias" / f"{side}_stereotyped_type1.txt.dev").write_text(f"1 [The cook] ran because [{word}] slept.\n")
    assert winobias(tmp_path, 1) == (Pair(stereotype="The cook ran because he slept.",
                                          opposite="The cook ran because she slept."),)
    (tmp_path / "winobias" / "anti_stereotyped_type1.txt.dev").write_text("")
    with pytest.raises(ConfigError, match=r"has 1 sentences and anti_stereotyped_type1\.txt\.dev 0"):
        winobias(tmp_path, 1)


def test_stereoset_and_crows_pairs_keep_their_sides(tmp_path: Path) -> None:
    data = {kind: {"sentence": kind} for kind in ("stereotype", "anti-stereotype", "unrelated")}
    (tmp_path / "stereoset_gender_reverse.json").write_text(json.dumps([{"data": data}]))
    assert stereoset(tmp_path, reverse=True) == (
        Pair(stereotype="stereotype", opposite="anti-stereotype", unrelated="unrelated"),)
    (tmp_path / "crows_pairs_anonymized.csv").write_text(
        ',sent_more,sent_less,stereo_antistereo,bias_type\n'
        '0,"a, b",c,stereo,gender\n1,d,e,antistereo,gender\n2,f,g,stereo,age\n')
    assert crows_pairs(tmp_path) == (Pair(stereotype="a, b", opposite="c"), Pair(stereotype="d", opposite="e"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dama_professions\.json is not there"):
        professions(tmp_path)


@pytest.mark.paper
def test_the_published_sets_are_read_whole(shared_data: Path) -> None:
    terms = professions(shared_data)
    assert len(terms) == 320
    assert (len(professions(shared_data, "train")), len(professions(shared_data, "test"))) == (219, 101)
    assert next(term for term in terms if term.term == "actress").factual == -1
    assert len(winobias(shared_data, 1)) == len(winobias(shared_data, 2)) == 396
    assert len(stereoset(shared_data)) == len(stereoset(shared_data, reverse=True)) == 253
    assert len(crows_pairs(shared_data)) == 262
