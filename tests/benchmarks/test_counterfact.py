"""CounterFact's protocol on records written out here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.answers import answer_scores
from benchmarks.cases import Case
from benchmarks.counterfact import case_of, case_scores, known_records, short_case_of
from editors.loading import LoadedModel

SHORT = {
    "case_id": 15019, "prompt": "The original language of The Purple Taxi was", "target_new": "English",
    "subject": "The Purple Taxi", "ground_truth": "French", "rephrase_prompt": "The language of The Purple Taxi is",
    "locality_prompt": "The original language of The Phantom of Liberty is", "locality_ground_truth": "French"}
LONG = {
    "case_id": 7, "requested_rewrite": {"prompt": "{} is located in the city of", "subject": "The Eiffel Tower",
                                        "target_new": {"str": "Rome"}, "target_true": {"str": "Paris"}},
    "paraphrase_prompts": ["one", "two"], "neighborhood_prompts": [f"neighbour {number}" for number in range(10)]}


def test_a_short_record_has_its_subject_cut_out_of_the_prompt() -> None:
    case = short_case_of(SHORT)
    assert case == Case("15019", "The original language of {} was", "The Purple Taxi", "English", "French",
                        ("The language of The Purple Taxi is",),
                        (("The original language of The Phantom of Liberty is", "French"),))
    assert case.question == SHORT["prompt"]


def test_a_short_record_without_its_subject_is_refused() -> None:
    with pytest.raises(ValueError, match=r"record 15019: the prompt .* does not hold its subject 'The Red Bus'"):
        short_case_of({**SHORT, "subject": "The Red Bus"})


def test_a_long_record_asks_five_neighbours_and_every_paraphrase() -> None:
    case = case_of(LONG)
    assert case.question == "The Eiffel Tower is located in the city of"
    assert case.paraphrases == ("one", "two")
    assert case.neighbours == tuple((f"neighbour {number}", "Paris") for number in range(5))


def test_scores_compare_both_answers_on_every_prompt(model: LoadedModel, cases: tuple[Case, ...]) -> None:
    for case, found in zip(cases, case_scores(model, cases), strict=True):
        def wins(prompt: str, case: Case = case) -> float:
            new, true = answer_scores(model, [(prompt, case.new), (prompt, case.true)])
            return float(new.logarithm > true.logarithm)

        assert found.success == wins(case.question)
        assert found.paraphrase == sum(map(wins, case.paraphrases)) / len(case.paraphrases)
        assert found.neighbourhood == sum(1 - wins(prompt) for prompt, _ in case.neighbours) / len(case.neighbours)
        forced = [answer_scores(model, [(prompt, case.new)])[0].teacher_forced for prompt in (case.question, *case.paraphrases)]
        assert found.teacher_forced == forced[0]
        assert found.paraphrase_teacher_forced == sum(forced[1:]) / len(case.paraphrases)


def test_known_records_are_those_whose_truth_comes_first(model: LoadedModel, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.counterfact.READ_AT_ONCE", 3)
    prompt = LONG["requested_rewrite"]["prompt"]
    question = prompt.format(LONG["requested_rewrite"]["subject"])
    words = [f" {word}" for word in ("Rome", "Paris", "a", "the", "is", "in", "name", "light")]
    choice = model.tokenizer.decode(list(answer_scores(model, [(question, "Rome")])[0].choices[:1]))
    records = [{**LONG, "requested_rewrite": {**LONG["requested_rewrite"], "target_true": {"str": word}}}
               for word in (*words, choice)]
    (tmp_path / "records.json").write_text(json.dumps(records))
    right = [number for number, word in enumerate((*words, choice))
             if answer_scores(model, [(question, word)])[0].is_first_choice]
    assert known_records(tmp_path / "records.json", model) == right
    assert known_records(tmp_path / "records.json", model, enough=1) == right[:1]
