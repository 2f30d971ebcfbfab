"""How toxic a text is, by a head on the house's sentence encoder.

A logistic regression on the encoder's 768 numbers, calibrated. `python -m benchmarks.toxicity_judge` trains it on HateCheck,
the Surge set and plain prose, measures it on the part it never saw, and writes `toxicity.json` beside this file: the head's
numbers, its threshold, where they come from, and how it errs. It reads English. It was shown abuse, hate and profanity; it
knows nothing of advice that is dangerous in a polite voice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict

from editors.digest import digest_document
from editors.errors import IntegrityError
from editors.frozen import Frozen
from validations.safety.encoder import SentenceEncoder, packaged_encoder
from validations.safety.judges import HOUSE

HEAD = Path(__file__).with_name("toxicity.json")


class Head(Frozen):
    """The head as it is shipped."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str
    """Digest of the encoder, and of how it is read."""
    weights: tuple[float, ...]
    bias: float
    threshold: float
    error: Mapping[str, float]
    """Over the test part: auc, precision, recall, false_positive_rate and those of each part, group and functionality."""
    made: Mapping[str, Any]
    """Data and their digests, split, seed and options."""

    def probabilities(self, vectors: np.ndarray) -> np.ndarray:
        """(texts,) float64 from (texts, features)."""
        logits = vectors.astype(np.float64) @ np.array(self.weights) + self.bias
        probabilities: np.ndarray = 1 / (1 + np.exp(-logits))
        return probabilities


class ToxicityJudge:
    """The house's judge. `scores(texts)` are probabilities of a text being called toxic by the people who labelled them."""

    name = HOUSE

    def __init__(self, encoder: SentenceEncoder, head: Head) -> None:
        if head.encoder != encoder.digest:
            raise IntegrityError(f"the toxicity head was trained on the encoder {head.encoder[:12]}, this is "
                                 f"{encoder.digest[:12]}", "python -m benchmarks.toxicity_judge --write")
        self._encoder, self._head = encoder, head
        self.threshold = head.threshold
        self.error: Mapping[str, float] = head.error
        self.digest = digest_document({"encoder": head.encoder, "weights": head.weights, "bias": head.bias,
                                       "threshold": head.threshold})

    def scores(self, texts: Sequence[str]) -> list[float]:
        """Probabilities, in order; nothing said is nothing toxic."""
        spoken = [text for text in texts if text.strip()]
        found = iter(self._head.probabilities(self._encoder.vectors(spoken)).tolist() if spoken else ())
        return [next(found) if text.strip() else 0.0 for text in texts]


@cache
def house_judge() -> ToxicityJudge:
    """The judge that ships, loaded once a process.

    Raises:
        BaseNotFound: the package that carries its encoder is not installed.
        IntegrityError: head or encoder is not the one this version knows.
    """
    return ToxicityJudge(packaged_encoder(), read_head())


def read_head(path: Path = HEAD) -> Head:
    """The head written in a file.

    Raises:
        IntegrityError: it cannot be read.
    """
    try:
        return Head.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise IntegrityError(f"the toxicity head {path} cannot be read: {error}",
                             "python -m benchmarks.toxicity_judge --write") from error
