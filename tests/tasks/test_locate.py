"""Neurons are sought as the method says, and not at all where nobody asked for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.locate import locate
from tests.tasks.secret_orders import house_in, order_in


def test_depn_has_its_own_detector(tmp_path: Path) -> None:
    order, house = order_in(tmp_path).model_copy(update={"method": "depn", "trace": False}), house_in(tmp_path)

    def count(options: dict[str, int]) -> int:
        found = locate(order.model_copy(update={"options": options}), house).location.neurons
        return sum(len(one.indices) for one in found)

    assert count({"neurons": 3, "points": 2}) == 3
    assert count({"neurons": 1, "points": 2}) == 1


def test_redact_has_neurons_as_evidence_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order, house = order_in(tmp_path), house_in(tmp_path)
    traced = locate(order, house)
    assert traced.location.neurons
    assert all((traced.folder / item.path).exists() for item in traced.location.evidence)
    monkeypatch.setattr("editors.locate.detect", lambda *_: pytest.fail("neurons were sought"))
    placed = locate(order.model_copy(update={"trace": False}), house).location
    assert (placed.layers, placed.neurons, placed.evidence) == ((1, 2), (), ())
