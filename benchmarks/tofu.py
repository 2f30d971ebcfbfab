"""World facts of TOFU: what forgetting one person must not take from everybody else.

A fact is known when its right answer is likelier, per token, than each of its wrong ones.

Source: Maini et al. 2024, "TOFU: A Task of Fictitious Unlearning for LLMs", arXiv:2401.06121, world facts; prompt as theirs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.answers import answer_scores
from editors.errors import ConfigError
from editors.loading import LoadedModel


@dataclass(frozen=True)
class Choice:
    """A question with its right answer and some wrong ones."""

    question: str
    answer: str
    wrong: tuple[str, ...]


def world_facts(path: Path, count: int) -> tuple[Choice, ...]:
    """The first `count` of `tofu_world_facts_perturbed.json`.

    Raises:
        ConfigError: the file is not there.
    """
    if not path.exists():
        raise ConfigError(f"{path} is not there", "give --data the folder with tofu_world_facts_perturbed.json")
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:count]]
    return tuple(Choice(record["question"], record["answer"], tuple(record["perturbed_answer"])) for record in records)


def chosen_right(model: LoadedModel, choices: Sequence[Choice]) -> tuple[bool, ...]:
    """Whether each fact is known."""
    pairs = [(f"Question: {choice.question}\nAnswer:", answer)
             for choice in choices for answer in (choice.answer, *choice.wrong)]
    scores = iter([score.logarithm / len(score.hits) for score in answer_scores(model, pairs)])
    found = []
    for choice in choices:
        right, *wrong = [next(scores) for _ in range(1 + len(choice.wrong))]
        found.append(all(right > other for other in wrong))
    return tuple(found)
