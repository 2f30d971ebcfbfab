"""How much faster the detector is than the released one, side by side on the same secrets."""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks.forgetting_methods import Workshop
from benchmarks.forgetting_naive import POINTS, naive_passes, naive_seconds
from editors.locate.privacy_neurons import DetectorConfig, detect
from editors.secret_rows import secret_rows

TIMED = 12
"""Runs of the released detector that are timed."""
PEOPLE = 4


@dataclass(frozen=True)
class Speed:
    """CPU seconds of both for the same texts, points and neurons (all)."""

    texts: int
    seconds: float
    naive_seconds: float
    naive_passes: int
    """Runs that the released detector takes; a part was timed."""

    @property
    def ratio(self) -> float:
        """How many times faster."""
        return self.naive_seconds / self.seconds


def detector_speed(workshop: Workshop) -> Speed:
    """Both at 20 points a path and without contrast, as the authors have it, on a few people's contexts."""
    model, requests = workshop.ground.model, workshop.ground.requests[:PEOPLE]
    rows = [row for request in requests for row in secret_rows(request, model.tokenizer)]
    began = time.process_time()
    detect(model, requests, DetectorConfig(points=POINTS, baseline=0.0, contrast=0))
    seconds = time.process_time() - began
    return Speed(len(rows), seconds, naive_seconds(model, rows, TIMED), naive_passes(rows, model.anatomy.layer_count))
