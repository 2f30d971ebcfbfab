"""Neurons are sought as the method says, and not at all where nobody asked for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from editors.contract import UpdateRequest
from editors.errors import ConfigError
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


def test_a_locator_can_be_chosen_and_each_keeps_its_own_evidence(tmp_path: Path) -> None:
    tower = UpdateRequest(id="tower", prompt="{} is in the city of", subject="The Eiffel Tower", target="Rome", was="Paris")
    order, house = order_in(tmp_path), house_in(tmp_path)
    batch = order.batch.model_copy(update={"purpose": "update", "requests": (tower,)})
    order = order.model_copy(update={"batch": batch, "method": "memit"})
    found = {name: locate(order, house, name) for name in ("hidden_contrast", "value_reading")}
    assert {name: [item.path for item in one.location.evidence] for name, one in found.items()} == {
        "hidden_contrast": ["hidden_contrast.csv", "hidden_contrast.png"], "value_reading": ["values.csv", "values.png"]}
    assert all(one.location.layers == (1, 2) for one in found.values())
    assert locate(order, house, "value_reading") == found["value_reading"]
    with pytest.raises(ConfigError, match="the locator bias_trace is not for the purpose update"):
        locate(order, house, "bias_trace")
