"""Measurements -> Verdict: the gate's decision, with Great Expectations' own results beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.house import House
from tasks.measure import read_measurements
from tasks.policy import policy_of
from tasks.records import Judged, Measured, Order
from validations.contract import Verdict


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
