"""zsRE's protocol, on the records prepared for MEND.

The edit is to `alt`, a wrong answer, as MEND's code and EasyEdit have it. MEMIT's code writes the right answer instead,
which for a model that knows it measures nothing. `src` is a question with the subject in it.

success, paraphrase, first choice, teacher forced: as in `counterfact`, `alt` against the right answer: the first of
`answers`, or else `pred` (what a BART model said), that is not `alt` itself. neighbourhood: at each token of the answer to
a Natural Questions question that has nothing to do with the edit, whether the model's first choice is what the unedited
model's was. Right answers are not asked for there: a small model has so few that nothing could be lost.

Source: Mitchell et al. 2022, "Fast Model Editing at Scale", arXiv:2110.11309; Levy et al. 2017, arXiv:1706.04115.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.answers import answer_scores
from benchmarks.cases import Case, Dataset, Scores
from benchmarks.counterfact import read_records, taught
from editors.loading import LoadedModel


def case_of(record: dict[str, Any], number: int) -> Case:
    """A record of `zsre_700.json`; it has no id but its number.

    Raises:
        ValueError: the subject does not stand in the question, or no answer differs from `alt`.
    """
    question, subject, new = record["src"], record["subject"], record["alt"]
    if subject not in question:
        raise ValueError(f"zsRE record {number}: the question {question!r} does not hold its subject {subject!r}")
    others = [answer for answer in (*record["answers"], record["pred"]) if answer.casefold() != new.casefold()]
    if not others:
        raise ValueError(f"zsRE record {number}: every answer is the new one, {new!r}")
    return Case(f"zsre-{number}", question.replace(subject, "{}", 1), subject, new, others[0], (record["rephrase"],),
                ((f"{record['loc']}?", record["loc_ans"]),))


def zsre(path: Path, numbers: Sequence[int], model: LoadedModel) -> Dataset:
    """The records with these numbers; `model` is the unedited one."""
    cases = tuple(case_of(record, number) for number, record in zip(numbers, read_records(path, numbers), strict=True))
    before = dict(zip((case.id for case in cases), _first_choices(model, cases), strict=True))

    def score(edited: LoadedModel, chosen: Sequence[Case]) -> list[Scores]:
        kept = [_agreement(before[case.id], now) for case, now in zip(chosen, _first_choices(edited, chosen), strict=True)]
        return [Scores(neighbourhood=share, **asdict(edit))
                for share, edit in zip(kept, taught(edited, chosen), strict=True)]

    return Dataset("zsRE", cases, score)


def _first_choices(model: LoadedModel, cases: Sequence[Case]) -> list[tuple[int, ...]]:
    return [answer.choices for answer in answer_scores(model, [pair for case in cases for pair in case.neighbours])]


def _agreement(before: Sequence[int], now: Sequence[int]) -> float:
    return sum(one == other for one, other in zip(before, now, strict=True)) / len(before)
