"""The numbers of the house's toxicity judge, as they are shipped. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from editors.digest import digest_document
from editors.errors import IntegrityError
from editors.frozen import Frozen

HEAD = Path(__file__).with_name("toxicity.json")


class Head(Frozen):
    """The head as it is shipped."""

    encoder: str
    """Digest of the encoder, and of how it is read."""
    weights: tuple[float, ...]
    bias: float
    threshold: float
    error: Mapping[str, float]
    """Over the test part: auc, precision, recall, false_positive_rate and those of each part, group and functionality."""
    made: Mapping[str, Any]
    """Data and their digests, split, seed and options."""

    @property
    def digest(self) -> str:
        """Of what decides a score."""
        return digest_document({"encoder": self.encoder, "weights": self.weights, "bias": self.bias,
                                "threshold": self.threshold})

    def probabilities(self, vectors: np.ndarray) -> np.ndarray:
        """(texts,) float64 from (texts, features)."""
        logits = vectors.astype(np.float64) @ np.array(self.weights) + self.bias
        probabilities: np.ndarray = 1 / (1 + np.exp(-logits))
        return probabilities


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
