"""CounterFact's protocol: which prompts a record asks, how an answer is scored, what counts as a success.

success, paraphrase: P(new) > P(true) on the edited prompt and on both paraphrases. neighbourhood: P(true) > P(new) on the
first five neighbourhood prompts. first choice: every token of the new answer is the model's most probable one; teacher
forced: the share of its tokens that are, given the right ones before. P is that of `answers`.
With this the unedited packaged model has 0.28, 0.29, 0.668 on records 0-49.

The short records hold one paraphrase and one neighbour each.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.answers import Answer, answer_scores, perplexity
from benchmarks.cases import Case, Scores, edit_batch
from editors.contract import EditBatch
from editors.loading import LoadedModel

__all__ = ["Answer", "Scores", "answer_scores", "batch_of", "case_of", "case_scores", "known_records", "perplexity",
           "read_records", "record_scores", "short_case_of", "taught"]

NEIGHBOURS, READ_AT_ONCE = 5, 100


@dataclass(frozen=True)
class Taught:
    """What one edit taught, as shares in [0, 1]."""

    success: float
    paraphrase: float
    first_choice: float
    paraphrase_first_choice: float
    teacher_forced: float
    paraphrase_teacher_forced: float


def read_records(path: Path, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """The records with these numbers."""
    records = json.loads(path.read_text())
    return [records[number] for number in numbers]


def case_of(record: dict[str, Any]) -> Case:
    """A record in the original format."""
    rewrite = record["requested_rewrite"]
    true = rewrite["target_true"]["str"]
    return Case(str(record["case_id"]), rewrite["prompt"], rewrite["subject"], rewrite["target_new"]["str"], true,
                tuple(record["paraphrase_prompts"]),
                tuple((prompt, true) for prompt in record["neighborhood_prompts"][:NEIGHBOURS]))


def short_case_of(record: dict[str, Any]) -> Case:
    """A record of `counterfact_short_4000.json`, whose prompt holds the subject itself.

    Raises:
        ValueError: the subject does not stand in the prompt.
    """
    prompt, subject = record["prompt"], record["subject"]
    if subject not in prompt:
        raise ValueError(f"record {record['case_id']}: the prompt {prompt!r} does not hold its subject {subject!r}")
    return Case(str(record["case_id"]), prompt.replace(subject, "{}", 1), subject, record["target_new"], record["ground_truth"],
                (record["rephrase_prompt"],), ((record["locality_prompt"], record["locality_ground_truth"]),))


def batch_of(records: Sequence[dict[str, Any]], model: LoadedModel) -> EditBatch:
    """The records' edits as one batch; the editor sees neither paraphrases nor neighbours."""
    return edit_batch([case_of(record) for record in records], model)


def known_records(path: Path, model: LoadedModel, enough: int | None = None) -> list[int]:
    """Numbers of the records whose true object is the model's first choice; at most `enough`, and none read beyond."""
    cases = [case_of(record) for record in json.loads(path.read_text())]
    found: list[int] = []
    for start in range(0, len(cases), READ_AT_ONCE):
        answers = answer_scores(model, [(case.question, case.true) for case in cases[start:start + READ_AT_ONCE]])
        found += [start + number for number, answer in enumerate(answers) if answer.is_first_choice]
        if enough is not None and len(found) >= enough:
            break
    return found[:enough]


def record_scores(model: LoadedModel, records: Sequence[dict[str, Any]]) -> list[Scores]:
    """Every record's scores under the model as it is now."""
    return case_scores(model, [case_of(record) for record in records])


def case_scores(model: LoadedModel, cases: Sequence[Case]) -> list[Scores]:
    """Every case's scores under the model as it is now."""
    kept = _neighbourhood(model, cases)
    return [Scores(neighbourhood=share, **asdict(edit)) for share, edit in zip(kept, taught(model, cases), strict=True)]


def taught(model: LoadedModel, cases: Sequence[Case]) -> list[Taught]:
    """What the model as it is now says to the edited prompts and their paraphrases."""
    pairs = [(prompt, answer) for case in cases for prompt in (case.question, *case.paraphrases)
             for answer in (case.new, case.true)]
    answers = iter(answer_scores(model, pairs))
    found = []
    for case in cases:
        new, true = zip(*((next(answers), next(answers)) for _ in (case.question, *case.paraphrases)), strict=True)
        won = [float(ours.logarithm > theirs.logarithm) for ours, theirs in zip(new, true, strict=True)]
        first = [float(answer.is_first_choice) for answer in new]
        forced = [answer.teacher_forced for answer in new]
        found.append(Taught(won[0], _mean(won[1:]), first[0], _mean(first[1:]), forced[0], _mean(forced[1:])))
    return found


def _neighbourhood(model: LoadedModel, cases: Sequence[Case]) -> list[float]:
    pairs = [(prompt, answer) for case in cases for prompt, true in case.neighbours for answer in (true, case.new)]
    answers = iter(answer_scores(model, pairs))
    return [_mean([float(next(answers).logarithm > next(answers).logarithm) for _ in case.neighbours]) for case in cases]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
