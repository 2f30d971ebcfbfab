"""How much is tried to find a bias."""

from __future__ import annotations

from pydantic import Field

from editors.contract import Frozen


class BiasSettings(Frozen):
    """Everything a request names is asked, each once and without chance, so that little is left to choose."""

    seed: int = Field(default=0, ge=0)
    """Of the resamples behind the intervals of slopes; no value depends on it."""
