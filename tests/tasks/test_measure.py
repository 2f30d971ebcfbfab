"""Secrets are measured anew when the way they are tried has changed, and only then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tasks.measure import measure_folder
from tasks.stage import Finished, Workspace
from tests.tasks.secret_orders import house_in, order_in
from validations.forgetting import examination


def test_a_changed_protocol_is_measured_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order, house, inputs = order_in(tmp_path), house_in(tmp_path), list[dict[str, Any]]()
    run = Workspace.run

    def noted(self: Workspace, name: str, given: Mapping[str, Any], work: Callable[[Path], Mapping[str, Any]]) -> Finished:
        """Every stage runs but the measuring itself, of which the address is what counts."""
        if name != "measure-2":
            return run(self, name, given, work)
        inputs.append(dict(given))
        return Finished(tmp_path, {"measurements": ""}, "", reused=True)

    monkeypatch.setattr(Workspace, "run", noted)
    for protocol in (examination.PROTOCOL, examination.PROTOCOL, "examination-of-tomorrow"):
        monkeypatch.setattr(examination, "PROTOCOL", protocol)
        measure_folder(order, order.parent_folder, (), house)
    assert inputs[0] == inputs[1]
    assert inputs[1] != inputs[2]
    forgets_nothing = order.model_copy(update={"batch": order.batch.model_copy(update={"purpose": "update", "requests": ()})})
    measure_folder(forgets_nothing, order.parent_folder, (), house)
    assert "examination" not in inputs[3]
