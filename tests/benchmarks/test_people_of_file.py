"""People taken from the published set of invented personal data, and the world facts of TOFU."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from benchmarks.people import requests_of, seal_key
from benchmarks.people_of_file import NOBODY, people_of_file
from benchmarks.tofu import Choice, chosen_right, world_facts
from editors.errors import ConfigError
from editors.loading import LoadedModel
from editors.secret_forms import form_of


def record(name: str, *secrets: str) -> dict:
    texts = [f"{opening} {name} has {' and '.join(secrets)}." for opening in ("So", "Now", "Here", "Once", "Thus", "But")]
    return {"subject": name, "subject_pii": list(secrets), "answer": texts[0],
            **{f"paraphrased_answer_{number}": text for number, text in enumerate(texts[1:], 1)}}


def test_values_that_end_with_four_digits_are_taken_and_dates_are_not(tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    path.write_text(json.dumps([record("Ann Bee", "12-3456", "01/02/1990"), record("Cee Dee", "x", "98 7654"),
                                record("Ann Bee", "12-3456")]))
    forget, others, control = people_of_file(path)
    assert (forget.split, forget.name, forget.secret, forget.form) == ("forget", "Ann Bee", "12-3456", "12-####")
    assert (forget.contexts, forget.paraphrases) == (("So Ann Bee has", "Now Ann Bee has"),
                                                     ("Here Ann Bee has", "Once Ann Bee has"))
    assert (others.split, others.secret, others.contexts[0]) == ("others", "98 7654", "So Cee Dee has x and")
    assert (control.split, control.name, control.repetitions) == ("controls", NOBODY, 0)
    assert control.contexts[0] == f"So {NOBODY} has"
    assert control.form == forget.form
    assert control.secret != forget.secret


def test_a_missing_file_is_refused_and_named(tmp_path: Path) -> None:
    for read in (people_of_file, partial(world_facts, count=3)):
        with pytest.raises(ConfigError, match=r"(?s)nowhere\.json is not there.*give --data the folder with"):
            read(tmp_path / "nowhere.json")


def test_the_published_set_gives_people_whose_forms_have_ten_thousand_values(shared_data: Path) -> None:
    people = people_of_file(shared_data / "pii_synthetic_forget_100.json")
    assert min(sum(person.split == split for person in people) for split in ("forget", "others", "controls")) >= 10
    assert not {person.name for person in people if person.split == "forget"} & {
        person.name for person in people if person.split == "others"}
    assert {form_of(request).size for request in requests_of(people, seal_key(0))} == {10_000}


def test_world_facts_are_read(shared_data: Path) -> None:
    first = world_facts(shared_data / "tofu_world_facts_perturbed.json", 3)[0]
    assert first.answer == "Paris"
    assert len(first.wrong) == 3


def test_a_fact_is_known_when_each_wrong_answer_is_less_likely(model: LoadedModel) -> None:
    one, other = (chosen_right(model, [Choice("Who?", answer, (wrong,))])
                  for answer, wrong in (("Paris", "Rome"), ("Rome", "Paris")))
    assert one != other
    assert chosen_right(model, [Choice("Who?", "Paris", ("Rome",)), Choice("Who?", "Rome", ("Paris",))]) == (*one, *other)
