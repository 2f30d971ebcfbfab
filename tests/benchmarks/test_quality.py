"""The quality table's rows, from edits of a tiny model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks.answers import perplexity
from benchmarks.cases import Case, Dataset
from benchmarks.counterfact import case_scores
from benchmarks.intervals import paired_interval
from benchmarks.outcomes import Outcome, document_of
from benchmarks.quality import Bench, PlainText, Workshop, outcomes_of, tables_of
from benchmarks.quality_picture import draw
from benchmarks.said import said
from benchmarks.shipped import plan
from editors.loading import LoadedModel
from editors.patch import applied
from tests.editors.plans import is_unchanged, state_of

TEXTS = ("Who are you? What is your name?", "The Louvre can be found there too.")


@pytest.fixture(scope="module")
def workshop(model: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(model, tmp_path_factory.mktemp("statistics"))


@pytest.fixture(scope="module")
def outcomes(workshop: Workshop, cases: tuple[Case, ...]) -> list[Outcome]:
    text = PlainText(TEXTS, perplexity(workshop.model, TEXTS))
    assert text.ratio(workshop.model) == 1.0
    bench = Bench(Dataset("CounterFact", cases, case_scores), Dataset("CounterFact", cases[:2], case_scores), text, text)
    before = state_of(workshop.model)
    found = list(outcomes_of(workshop, bench, ("memit", "rome")))
    assert is_unchanged(workshop.model, before)
    return found


def test_batches_and_single_edits_stand_beside_the_unedited_model_on_their_own_records(outcomes: list[Outcome]) -> None:
    assert [outcome.title for outcome in outcomes] == [
        "unedited, 4 records", "memit, 4 in one batch", "unedited, 2 records",
        "rome, 2 one by one"]
    assert [len(outcome.scores) for outcome in outcomes] == [4, 4, 2, 2]
    assert all(outcome.cpu_seconds > 0 for outcome in outcomes if not outcome.is_unedited)


def test_a_single_edit_is_scored_under_itself_alone(workshop: Workshop, outcomes: list[Outcome],
                                                     cases: tuple[Case, ...]) -> None:
    for case, score in zip(cases[:2], outcomes[-1].scores, strict=True):
        with applied(workshop.model.model, plan(workshop.model, "rome", [case], workshop.statistics)):
            assert case_scores(workshop.model, [case]) == [score]


def test_the_document_pairs_every_row_with_the_unedited_one_above(outcomes: list[Outcome]) -> None:
    rows = json.loads(json.dumps(document_of(outcomes), allow_nan=False))
    assert rows[0]["shares"]["success"]["change"] == 0
    assert rows[3]["name"] == "rome, 2 one by one"
    for row, beside, outcome, unedited in ((rows[1], rows[0], outcomes[1], outcomes[0]), (rows[3], rows[2], *outcomes[:1:-1])):
        change = row["shares"]["neighbourhood"]
        assert change["change"] == pytest.approx(change["mean"] - beside["shares"]["neighbourhood"]["mean"])
        assert tuple(change["change_interval"]) == paired_interval(
            [score.neighbourhood for score in outcome.scores], [score.neighbourhood for score in unedited.scores])


def test_a_free_answer_counts_when_it_begins_with_the_new_one(model: LoadedModel, cases: tuple[Case, ...]) -> None:
    ids = model.tokenizer(cases[0].question)["input_ids"]
    count = len(ids)
    with torch.no_grad():
        for _ in range(6):
            ids.append(int(model.model(torch.tensor([ids])).logits[0, -1].argmax()))
    own = replace(cases[0], new=model.tokenizer.decode(ids[count:]))
    assert own.new.strip()
    assert said(model, [own, cases[0]]) == [1.0, 0.0]


def test_the_table_and_the_picture_show_every_row(outcomes: list[Outcome], tmp_path: Path) -> None:
    console = Console(width=170, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for table in tables_of([*outcomes, replace(outcomes[0], dataset="zsRE")]):
        console.print(table)
    text = console.export_text()
    assert [outcome.title for outcome in outcomes if outcome.title not in text] == []
    assert text.count("unedited, 4 records") == 2
    for count in (1, 2, len(outcomes)):
        draw(outcomes[:count], "a machine", tmp_path / "quality.png")
    assert (tmp_path / "quality.png").read_bytes().startswith(b"\x89PNG")
