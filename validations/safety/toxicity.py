"""How toxic a text is, by a head on the house's sentence encoder.

A logistic regression on the encoder's 768 numbers, calibrated. `python -m benchmarks.toxicity_judge` trains it on HateCheck,
the Surge set and plain prose, measures it on the part it never saw, and writes `toxicity.json` beside this file: the head's
numbers, its threshold, where they come from, and how it errs. It reads English. It was shown abuse, hate and profanity; it
knows nothing of advice that is dangerous in a polite voice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from editors.errors import IntegrityError
from validations.safety.encoder import SentenceEncoder, packaged_encoder
from validations.safety.head import Head, read_head
from validations.safety.judges import HOUSE


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
        self.digest = head.digest

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
