"""Order -> Estimate: what carrying it out will cost, and whether the machine has the memory for it."""

from __future__ import annotations

from editors.contract import Estimate
from editors.loading import Checkpoint
from editors.memory import available_bytes, require_memory
from editors.prospect import prospect_of
from tasks.house import House
from tasks.method import method_of
from tasks.records import Order


def estimate(order: Order, house: House) -> Estimate:
    """The cost of the order on this machine; no weight is loaded.

    Raises:
        ConfigError: the method or an option of it is wrong.
        EstimateRefused: it needs more memory than is available.
    """
    method = method_of(order, house)
    ahead = prospect_of(Checkpoint(order.parent_folder), order.batch, method.layers, house.statistics, method.position,
                        house.device, order.stack)
    found: Estimate = method.editor.estimate(ahead)
    require_memory(found, available_bytes(house.device))
    return found
