"""Which policy judges an order."""

from __future__ import annotations

from pathlib import Path

from tasks.records import Order
from validations.policy import Policy, load_policy, policy_for


def policy_of(order: Order) -> Policy:
    """The sheet's policy (a shipped name or a file), or the purpose's own.

    Raises:
        ConfigError: there is none, or it is wrong.
    """
    if order.policy is None:
        return policy_for(order.batch.purpose)
    path = Path(order.policy)
    return load_policy(path) if path.suffix in (".yaml", ".yml") else policy_for(order.policy)
