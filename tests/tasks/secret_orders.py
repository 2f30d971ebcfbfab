"""An order to forget on a tiny base, and a house of its own."""

from __future__ import annotations

from pathlib import Path

from editors.contract import EditBatch
from editors.forget_request import ForgetRequest
from editors.loading import Checkpoint
from tasks.house import House
from tasks.privacy_key import PrivacyKey
from tasks.records import Order
from tasks.store import Store
from tasks.store_location import StoreLocation
from tests.tiny import tiny_folder

REQUEST = ForgetRequest(id="case-1", context=("The telephone number of Anna Harbour is",), secret="4417",
                        subject="Anna Harbour").sealed(b"1" * 32)


def house_in(folder: Path) -> House:
    """A home with nothing in it."""
    return House(root=folder / "home", store=Store(StoreLocation("unused")), mlflow_uri="", user="tester",
                 privacy_key=PrivacyKey(None, folder / "privacy.key"), device="cpu")


def order_in(folder: Path) -> Order:
    """To forget one number, by redact, on a base of random weights."""
    base = Checkpoint(tiny_folder(folder / "base"))
    batch = EditBatch(purpose="forget", base_digest=base.digest, parent_digest=base.digest, requests=(REQUEST,))
    return Order(sheet="sheet.yaml", sheet_digest="0" * 64, model="tiny", channel="demo", base=str(base.folder),
                 base_folder=base.folder, base_digest=base.digest, parent_version=None, parent_folder=base.folder,
                 parent_digest=base.digest, stack=(), patch_digests=(), history=(), batch=batch, method="redact", options={},
                 layers=(1, 2), position="auto", trace=True, policy=None, requester="tester")
