"""Warm: fill the store of statistics before an edit needs them."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.house import open_house
from flows.settings import read_settings
from flows.stages import fill_store


@flow(name="warm", persist_result=False)
def warm(base: str, layers: str | None = None) -> dict[str, Any]:
    """Make what the editors' closed forms need of a base: its own text, second moments and their factors.

    Args:
        base: As a sheet names it.
        layers: Such as `3-7,15`, or `all`. None: those of the calibrated methods.

    Returns:
        Every statistic with its place and size, and whether it was made now.

    Raises:
        BaseNotFound: the base leads nowhere.
        ConfigError: a layer is not one of the model's.
    """
    with open_house(read_settings()) as house:
        warmed = fill_store(base, layers, house)
        return {**warmed.model_dump(mode="json"), "store": str(house.statistics), "next": ["suture edit SHEET"]}
