"""A tiny random model that has memorised invented people in seconds, by the same builder as the real one."""

from __future__ import annotations

from pathlib import Path

from benchmarks.people import invent
from benchmarks.planting import Planted, Recipe, planted
from editors.loading import Checkpoint
from tests.tiny import tiny_folder

LAYERS = 4
RECIPE = Recipe(first_layer=1, steps=128, learning_rate=1e-2, fact_repetitions=64, plain_rows=1, plain_tokens=16,
                plain_weight=0.1)
COUNTS = 2, 1, 1


def tiny_planted(folder: Path, seed: int = 0) -> Planted:
    """Two people to forget, one who must stay, one control; built in `folder`."""
    base = Checkpoint(tiny_folder(folder / "base", layers=LAYERS, seed=1))
    people = [person if not person.repetitions else person.often(RECIPE.steps) for person in invent(seed, COUNTS)]
    return planted(base, people, RECIPE, folder / "planted", folder / "statistics")
