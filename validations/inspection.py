"""What the files say, without running a model: kept as JSON beside the observations. No torch."""

from __future__ import annotations

from validations.contract import Measurement, Recorded


class Inspection(Recorded):
    """The integrity rows of one candidate's files, under the digests of the folders that were read."""

    parent_digest: str
    candidate_digest: str
    rows: tuple[Measurement, ...]
