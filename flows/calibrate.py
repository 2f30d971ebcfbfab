"""Calibrate: find what layers and options each method should have on a model."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.house import open_house
from flows.settings import read_settings
from flows.stages import sweep


@flow(name="calibrate", persist_result=False)
def calibrate(base: str, facts: str | None = None, methods: list[str] | None = None) -> dict[str, Any]:
    """Sweep the methods on facts that the model knows, and keep what was found for its later edits.

    Args:
        base: As a sheet names it.
        facts: A file of JSON lines. None: the list that ships.
        methods: Names of methods. None: every one that updates.

    Returns:
        Every trial with its marks, the best of each method, and where the calibration and its picture are.

    Raises:
        BaseNotFound: the base leads nowhere.
        ConfigError: a method or the facts are wrong, or the model knows too few of them.
    """
    with open_house(read_settings()) as house:
        found = sweep(base, facts, methods or (), house)
        return {**found.model_dump(mode="json"), "next": ["suture edit SHEET --dry-run"]}
