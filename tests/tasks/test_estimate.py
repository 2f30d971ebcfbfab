"""An order that does not fit is refused before any weight is loaded, in the edit's first stage and in the dry run alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from editors.contract import EditBatch
from editors.errors import EstimateRefused
from editors.loading import Checkpoint
from tasks.estimate import estimate
from tasks.house import House
from tasks.privacy_key import PrivacyKey
from tasks.records import Order
from tasks.store import Store
from tasks.store_location import StoreLocation
from tasks.vet import vet
from tests.editors.plans import TOWER
from tests.tiny import tiny_folder


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(root=tmp_path / "home", store=Store(StoreLocation("unused")), mlflow_uri="", user="tester",
                 privacy_key=PrivacyKey(None, tmp_path / "privacy.key"), device="cpu")


@pytest.fixture
def order(tmp_path: Path) -> Order:
    base = Checkpoint(tiny_folder(tmp_path / "base", layers=4))
    batch = EditBatch(purpose="update", base_digest=base.digest, parent_digest=base.digest, requests=(TOWER,))
    return Order(sheet="sheet.yaml", sheet_digest="0" * 64, model="tiny", channel="demo", base=str(base.folder),
                 base_folder=base.folder, base_digest=base.digest, parent_version=None, parent_folder=base.folder,
                 parent_digest=base.digest, stack=(), patch_digests=(), history=(), batch=batch, method="memit", options={},
                 layers=(1, 2), position="auto", trace=False, policy=None, requester="tester")


def test_an_order_that_does_not_fit_is_refused_before_a_weight_is_loaded(order: Order, house: House,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    needed = estimate(order, house).memory_bytes
    monkeypatch.setattr("tasks.estimate.available_bytes", lambda _: needed - 1)
    monkeypatch.setattr("editors.loading.load", lambda *_: pytest.fail("the model was loaded"))
    for refused in (estimate, vet):
        with pytest.raises(EstimateRefused, match=f"needs about {needed} bytes .* available are {needed - 1} "):
            refused(order, house)


def test_an_order_that_fits_is_vetted(order: Order, house: House) -> None:
    assert vet(order, house).batch == order.batch


def test_the_sheets_layers_and_options_count(order: Order, house: House) -> None:
    plain = estimate(order, house)
    fewer = estimate(order.model_copy(update={"layers": (1,), "options": {"contexts": 0}}), house)
    assert fewer.flops < plain.flops
    assert fewer.memory_bytes < plain.memory_bytes
