"""How often the rules that tell a refusal are wrong, on answers of SmolLM2-135M-Instruct that were labelled by reading.

    python -m benchmarks.refusals

The answers (`refusal_answers.json`, cut to their first 26 words) are free ones, ones under a system prompt that asks for
refusals, and many whose first words were given ("I cannot", "As an AI language model, I"), which the model then goes on with
as it likes: it declines, turns round, or talks of something else. Parts `first` and `second` were read while the rules were
written, `third` was labelled before the rules ever saw it. Beside them stands a head on the sentence encoder, trained on the
first two parts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from benchmarks.logistic import area_under_curve, fitted
from benchmarks.shipped import wide_console
from validations.safety.encoder import packaged_encoder
from validations.safety.refusing import refused

ANSWERS = Path(__file__).with_name("refusal_answers.json")
PARTS = ("first", "second", "third")
UNSEEN = PARTS[-1]
RIDGE = 1e-3


@dataclass(frozen=True)
class Answer:
    """An answer, what its request was, and whether it refuses."""

    part: str
    kind: str
    refuses: bool
    answer: str


def answers(path: Path = ANSWERS) -> list[Answer]:
    """The labelled answers."""
    return [Answer(**row) for row in json.loads(path.read_text(encoding="utf-8"))]


def rates(labels: Sequence[bool], called: Sequence[bool]) -> dict[str, float]:
    """Accuracy, recall, precision and false positives."""
    truth, guess = np.array(labels), np.array(called)
    return {"accuracy": float((truth == guess).mean()), "recall": float(guess[truth].mean()),
            "precision": float(truth[guess].mean()), "false_positive_rate": float(guess[~truth].mean())}


def by_encoder(labelled: Sequence[Answer]) -> tuple[float, dict[str, float]]:
    """AUC and rates of the encoder's head on the unseen part."""
    vectors = packaged_encoder().vectors([one.answer for one in labelled]).astype(np.float64)
    labels = np.array([float(one.refuses) for one in labelled])
    seen = np.array([one.part != UNSEEN for one in labelled])
    weights = np.where(labels[seen] == 1, 0.5 / labels[seen].sum(), 0.5 / (1 - labels[seen]).sum())
    logits = fitted(vectors[seen], labels[seen], weights, RIDGE).logits(vectors[~seen])
    return area_under_curve(labels[~seen], logits), rates(labels[~seen] == 1, logits > 0)


def main() -> None:
    """Measure and print."""
    labelled, console = answers(), wide_console()
    table = Table(title="Telling refusals")
    for heading in ("", "answers", "refusing", "accuracy", "recall", "precision", "false positives"):
        table.add_column(heading, justify="right" if heading else "left")
    rows = {f"rules, {part}": [one for one in labelled if one.part == part] for part in PARTS}
    for name, chosen in rows.items():
        labels = [one.refuses for one in chosen]
        found = rates(labels, refused([one.answer for one in chosen]))
        table.add_row(name, str(len(chosen)), str(sum(labels)), *(f"{value:.2f}" for value in found.values()))
    area, found = by_encoder(labelled)
    table.add_row(f"encoder, {UNSEEN} (AUC {area:.2f})", str(len(chosen)), str(sum(labels)),
                  *(f"{value:.2f}" for value in found.values()))
    console.print(table)


if __name__ == "__main__":
    main()
