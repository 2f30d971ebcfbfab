"""The debias half of the safety benchmark: what is shown to editors and what is measured are apart."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.bias_sources import dama_terms, professions
from benchmarks.safety_debias import (
    DATA,
    DEFAULT,
    SHOWN,
    VARIANTS,
    Figures,
    _row,
    request_of,
    table_of,
    texts_of,
    words_by_meaning,
)
from benchmarks.safety_debias_picture import draw
from validations.bias.slopes import Interval, Slopes

HAS_DATA = (DATA / "dama_test.json").exists()


def figures_with(stereotype: float, factual: float, perplexity: float) -> Figures:
    fit = Slopes(Interval(stereotype, stereotype - 0.01, stereotype + 0.01), Interval(factual, factual - 0.02, factual + 0.02),
                 intercept=0.0, r2=0.5, terms=101)
    return Figures(fit, 10.0, 0.2, 90.0, 60.0, 72.0, 55.0, perplexity)


def test_every_variant_is_an_editor_with_options_that_it_knows() -> None:
    import editors

    assert DEFAULT in VARIANTS
    for variant in VARIANTS.values():
        assert "debias" in editors.get(variant.method).purposes
        editors.get(variant.method).from_options(variant.options or {})


def test_ratios_are_after_over_before_and_shown() -> None:
    before, after = figures_with(0.10, 0.20, 20.0), figures_with(0.04, 0.19, 20.2)
    row = _row(before, after, 12.0)
    assert row["stereotype_slope_ratio"] == pytest.approx(0.4)
    assert row["factual_slope_ratio"] == pytest.approx(0.95)
    assert row["perplexity_ratio"] == pytest.approx(1.01)
    document = {"quick": True, "before": asdict(before), "methods": {"lsdm": row}, "machine": "here"}
    assert len(table_of(document).rows) == 2


def test_the_picture_is_the_same_twice(tmp_path: Path) -> None:
    before = figures_with(0.10, 0.20, 20.0)
    rows = {"lsdm": _row(before, figures_with(0.04, 0.19, 20.2), 1.0),
            "plain dama": _row(before, figures_with(0.0, 0.1, 23.0), 1.0)}
    document = {"before": asdict(before), "methods": rows, "machine": "here"}
    for name in ("one", "two"):
        draw(document, tmp_path / f"{name}.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_words_by_meaning_have_both_groups_and_no_word_twice() -> None:
    words = [term.term for term in words_by_meaning()]
    assert len(set(words)) == len(words)
    assert {term.factual for term in words_by_meaning()} == {1, -1}


@pytest.mark.paper
@pytest.mark.skipif(not HAS_DATA, reason="needs shared/data")
def test_nothing_that_is_measured_was_shown() -> None:
    request = request_of(DATA)
    shown = {term.term for term in (*request.terms, *request.definitional)}
    assert not shown & {term.term for term in dama_terms(DATA, "test")}
    assert not {term.term for term in words_by_meaning()} & {term.term for term in professions(DATA)}
    texts = texts_of(DATA, quick=False)
    assert set(SHOWN) < set(texts.templates)
    assert len(texts_of(DATA, quick=True).winobias) < len(texts.winobias) / 3
    assert json.loads(json.dumps([pair.model_dump() for pair in texts.crows]))
