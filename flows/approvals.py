"""Approvals: answer the tags by which people decide in MLflow. By the policy, into the same records as every other door."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.asks import answer_asks
from flows.settings import read_settings


@flow(name="approvals", persist_result=False)
def approvals() -> dict[str, Any]:
    """Answer every tag `suture.approve` and `suture.refuse` that stands at a version in MLflow.

    Returns:
        What was decided, and what was asked in vain, each with its version, its person and the reason.

    Raises:
        ServiceError: MLflow cannot be reached.
    """
    return answer_asks(read_settings())
