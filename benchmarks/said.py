"""What the model says of itself when asked: the strictest question, and the one that a user asks."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.cases import Case
from editors.loading import LoadedModel
from validations.answers import says
from validations.scoring import Ask, answer

ROOM_TO_END = 2
"""Tokens beyond the answer's own, to see whether its last word ends there."""


def said(model: LoadedModel, cases: Sequence[Case]) -> list[float]:
    """For each case 1 when the greedy continuation of the edited prompt begins with the new answer, else 0.

    The words that the gate judges a free answer by.
    """
    asks = [Ask(tuple(model.tokenizer(case.question.rstrip())["input_ids"]),
                greedy_tokens=len(model.tokenizer(f" {case.new.strip()}", add_special_tokens=False)["input_ids"]) + ROOM_TO_END)
            for case in cases]
    return [says(model.tokenizer.decode(found.greedy, skip_special_tokens=True), case.new, whole=False)
            for case, found in zip(cases, answer(model, asks), strict=True)]
