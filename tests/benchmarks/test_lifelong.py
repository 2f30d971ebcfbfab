"""What the command reports, from a run on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import lifelong
from benchmarks.cases import Case
from benchmarks.lifelong_picture import draw
from benchmarks.sources import method_sources
from benchmarks.stream import Arm, Course, run
from editors.loading import LoadedModel


@pytest.fixture(scope="module")
def document(model: LoadedModel, cases: tuple[Case, ...], tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("run")
    course = Course(cases, (1, 4), ("Who are you? What is your name?",))
    base = lifelong.unedited_of(model, course, folder)
    assert lifelong.unedited_of(model, course, folder) == base
    journals = {}
    for arm in (Arm("memit", 3), Arm("rome", 1)):
        journals[arm.name] = lifelong.journal_of(arm, course, model, folder)
        run(model, arm, course, base, journals[arm.name], folder / "statistics")
    journals["rome, one at a time"].stop("after 4 edits: nothing more")
    return lifelong.document_of(journals, course, base)


def test_the_document_is_json_with_the_promised_keys(document: dict) -> None:
    document = json.loads(json.dumps(document, allow_nan=False))
    assert list(document["editors"]) == ["memit", "rome, one at a time"]
    assert [point["edits"] for point in document["editors"]["memit"]] == [1, 4]
    assert document["targets"]["success"]["limit"] == 0.95
    assert set(document["targets"]["perplexity_ratio"]["reached"]) == {"memit", "rome, one at a time"}
    assert not any(target["reached"]["rome, one at a time"] for target in document["targets"].values())
    assert document["edits"] == 4
    assert document["machine"]


def test_table_and_sentences_say_where_an_editor_breaks(document: dict) -> None:
    console = Console(width=150, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(lifelong.table_of(document))
    text = console.export_text()
    assert "memit" in text
    assert text.count("*") >= 1
    sentences = lifelong.sentences_of(document)
    assert sentences[1].endswith("; stopped after 4 edits: nothing more")
    broken = {**document, "breaks_at": {"memit": {"success": None, "neighbourhood_drop": 300}}, "stopped": {"memit": None}}
    assert lifelong.sentences_of(broken) == ["memit: misses neighbourhood drop at 300 edits"]
    kept = {**broken, "breaks_at": {"memit": {"success": None}}}
    assert lifelong.sentences_of(kept) == ["memit: keeps every target"]


def test_the_picture_is_drawn_even_where_a_figure_is_missing(document: dict, tmp_path: Path) -> None:
    lost = [{**point, "perplexity_ratio": None} for point in document["editors"]["memit"]]
    draw({**document["editors"], "lost": lost}, "a machine", tmp_path / "deep" / "picture.png")
    assert (tmp_path / "deep" / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_another_course_another_size_or_other_code_is_another_journal(
        model: LoadedModel, cases: tuple[Case, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course = Course(cases, (1, 4), ())
    first = lifelong.journal_of(Arm("memit", 3), course, model, tmp_path).folder
    assert lifelong.journal_of(Arm("memit", 3), course, model, tmp_path).folder == first
    assert lifelong.journal_of(Arm("memit", 1), course, model, tmp_path).folder != first
    assert lifelong.journal_of(Arm("memit", 3), Course(cases, (1, 2), ()), model, tmp_path).folder != first
    monkeypatch.setattr(lifelong, "method_sources", lambda *_, **__: {"editors.memit": "other"})
    assert lifelong.journal_of(Arm("memit", 3), course, model, tmp_path).folder != first


def test_a_method_s_code_is_what_it_imports_and_no_other_method() -> None:
    sources = method_sources("memit", besides=("benchmarks.stream",))
    assert {"editors.memit", "editors.solver", "editors.suffix", "benchmarks.answers", "benchmarks.line"} <= set(sources)
    assert not {"editors", "editors.rome", "benchmarks.lifelong"} & set(sources)


def test_editors_are_run_in_batches_and_the_fast_ones_singly_too() -> None:
    def arms(*arguments: str) -> list[Arm]:
        return lifelong._arms(lifelong._options(arguments))

    assert arms("--editors", "memit", "rome") == [Arm("memit", 100), Arm("rome", 100), Arm("rome", 1)]
    assert arms("--quick", "--editors", "memit", "--one-at-a-time") == [Arm("memit", 10)]
    assert arms("--editors", "--one-at-a-time", "memit") == [Arm("memit", 1)]
    assert Arm("memit", 10) in arms("--quick")
