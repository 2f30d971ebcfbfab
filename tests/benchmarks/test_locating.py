"""The benchmark of causal tracing compares the same cells both ways, on every family."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.locating import FACT, compare, flop_ratio
from editors.loading import Checkpoint, load
from editors.locate.causal_trace import TraceConfig
from tests.tiny import FAMILIES, tiny_folder


@pytest.mark.parametrize("family", FAMILIES)
def test_both_ways_give_the_same_numbers(tmp_path: Path, family: str) -> None:
    model = load(Checkpoint(tiny_folder(tmp_path, family, layers=4)), "cpu")
    found = compare(model, FACT, TraceConfig(window=2, noise_samples=2, token_limit=6))
    assert found["max_difference"] <= 1e-5
    assert found["cells"] == 4 * (3 * 6 + 2 * 2)


def test_a_trace_takes_a_quarter_of_the_operations_at_most(tmp_path: Path) -> None:
    model = load(Checkpoint(tiny_folder(tmp_path, "llama", layers=12)), "cpu")
    assert flop_ratio(model, FACT, TraceConfig(kinds=("state", "mlp", "attention"), noise_samples=1, token_limit=100,
                                               layer_stride=3)) >= 4
