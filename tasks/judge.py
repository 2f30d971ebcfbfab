"""Measurements -> Verdict: the gate's decision, with Great Expectations' own results beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.house import House
from tasks.measure import read_measurements
from tasks.records import Judged, Measured, Order
from validations.contract import Verdict
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


def judge(order: Order, candidate_digest: str, measured: Measured, house: House) -> Judged:
    """Judge a measured candidate whose checkpoint on disk is `candidate_digest`; the same measurements are judged once.

    Raises:
        ConfigError: the policy is wrong or for another purpose.
    """
    policy = policy_of(order)

    def work(folder: Path) -> dict[str, Any]:
        from validations.gate import judge as gate

        judgement = gate(read_measurements(measured), policy, order.batch, earlier=order.history,
                         candidate_digest=candidate_digest)
        (folder / "expectations.json").write_text(json.dumps(judgement.evidence, indent=1, ensure_ascii=False))
        (folder / "verdict.json").write_text(judgement.verdict.model_dump_json(indent=1))
        return judgement.verdict.model_dump(mode="json")

    inputs = {"measured": measured.digest, "candidate": candidate_digest, "policy": policy.digest, "batch": order.batch.digest}
    done = house.workspace.run("judge-1", inputs, work)
    return Judged(folder=done.folder, digest=done.digest, verdict=Verdict.model_validate(done.document))
