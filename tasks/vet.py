"""Order -> Order with warnings: is every request sane, and does the parent not do already what it asks?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editors.errors import SheetError
from tasks.estimate import estimate
from tasks.examine import ASKERS, satisfied
from tasks.house import House
from tasks.measure import baseline
from tasks.method import method_of
from tasks.policy import policy_of
from tasks.records import Order

if TYPE_CHECKING:
    from validations.gate import RequestJudgement

MOST_TOKENS = 512
"""Longest prompt and target together: a fact is a sentence, and the target search pays for every position."""


def vet(order: Order, house: House) -> Order:
    """The order with what a user should know about it.

    Raises:
        SheetError: a request is not sane; all are named.
        ConfigError: the method, an option or the policy is wrong.
        EstimateRefused: the edit needs more memory than is available.
    """
    # a wrong option or policy is told before a model works for minutes
    method_of(order, house)
    policy_of(order)
    # what cannot be edited is told before the model is asked: an empty answer cannot even be scored
    _refuse(order, _judged(order, {}, house))
    estimate(order, house)
    document = _judged(order, _satisfied(order, house), house)
    _refuse(order, document)
    return order.model_copy(update={"warnings": tuple(text for _, text in document["problems"])})


def _judged(order: Order, satisfied: dict[str, bool], house: House) -> dict[str, Any]:
    def work(folder: Path) -> dict[str, Any]:
        found = JUDGES[order.batch.purpose](order, satisfied)
        (folder / "expectations.json").write_text(json.dumps(found.evidence, indent=1, ensure_ascii=False))
        return {"problems": [[problem.severity, str(problem)] for problem in found.problems], "refused": found.refused}

    inputs = {"batch": order.batch.digest, "satisfied": satisfied, "most_tokens": MOST_TOKENS}
    return house.workspace.run("vet-1", inputs, work).document


def _judge_updates(order: Order, satisfied: dict[str, bool]) -> RequestJudgement:
    from editors.loading import load_tokenizer
    from editors.prompts import encode, render
    from validations.gate import judge_requests
    from validations.request_suite import request_rows

    tokenizer = load_tokenizer(order.parent_folder)
    return judge_requests(request_rows(order.batch.updates, lambda one: len(encode(render(one, tokenizer), tokenizer).ids),
                                       MOST_TOKENS, satisfied))


def _judge_forgets(order: Order, satisfied: dict[str, bool]) -> RequestJudgement:
    from editors.loading import load_tokenizer
    from editors.secret_rows import secret_rows
    from validations.forget_suite import EMPTY_BATCH, FORGET_RULES, forget_rows
    from validations.gate import judge_requests

    tokenizer = load_tokenizer(order.parent_folder)
    rows = forget_rows(order.batch.forgets, lambda one: max(len(row.ids) for row in secret_rows(one, tokenizer)),
                       MOST_TOKENS, satisfied)
    return judge_requests(rows, FORGET_RULES, EMPTY_BATCH)


def _judge_detoxifies(order: Order, satisfied: dict[str, bool]) -> RequestJudgement:
    from editors.loading import load_tokenizer
    from editors.safe_answers import longest
    from validations.detoxify_suite import DETOXIFY_RULES, EMPTY_BATCH, detoxify_rows
    from validations.gate import judge_requests

    tokenizer = load_tokenizer(order.parent_folder)
    rows = detoxify_rows(order.batch.detoxifies, lambda one: longest(one, tokenizer), MOST_TOKENS, satisfied,
                         has_chat=bool(tokenizer.chat_template))
    return judge_requests(rows, DETOXIFY_RULES, EMPTY_BATCH)


def _judge_debiases(order: Order, satisfied: dict[str, bool]) -> RequestJudgement:
    from editors.loading import load_tokenizer
    from validations.debias_suite import DEBIAS_RULES, EMPTY_BATCH, debias_rows
    from validations.gate import judge_requests

    tokenizer = load_tokenizer(order.parent_folder)
    rows = debias_rows(order.batch.debiases, lambda text: tokenizer(text)["input_ids"], MOST_TOKENS, satisfied)
    return judge_requests(rows, DEBIAS_RULES, EMPTY_BATCH)


JUDGES = {"update": _judge_updates, "forget": _judge_forgets, "detoxify": _judge_detoxifies, "debias": _judge_debiases}
"""How a batch is judged, by purpose."""


def _refuse(order: Order, document: dict[str, Any]) -> None:
    if document["refused"]:
        lines = [text for severity, text in document["problems"] if severity == "critical"]
        raise SheetError("\n  ".join([f"the sheet {order.sheet} asks for what cannot be edited:", *lines]),
                         "mend these requests and run the same command again")


def _satisfied(order: Order, house: House) -> dict[str, bool]:
    """Request id -> whether the parent does already what it asks."""
    return satisfied(order, house) if order.batch.purpose in ASKERS else _said(order, house)


def _said(order: Order, house: House) -> dict[str, bool]:
    """Request id -> whether the parent says the target by itself already."""
    from validations.answers import holds, says

    requests = {request.id: request for request in order.batch.updates}
    asked = [reply for reply in baseline(order, house).replies if (reply.probe, reply.role) == ("efficacy", "edit")]
    return {reply.request: bool(
        holds(reply.text, request.accept) if (request := requests[reply.request]).accept
        else says(reply.text, request.target_text, request.is_chat)) for reply in asked}
