"""How a bias is measured."""

from __future__ import annotations

from pydantic import Field

from editors.contract import Frozen


class BiasSettings(Frozen):
    """What is drawn; all else is asked once, without chance."""

    seed: int = Field(default=0, ge=0)
    """Of the bootstrap's draws, 0 or more; the default is this house's for every draw."""
