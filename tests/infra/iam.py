"""What AWS would answer to a request, by the rules it documents: an explicit deny wins, then an allow, and nothing else.

Only what the templates use is known; anything else raises, so that a new statement cannot pass unread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

Statement = Mapping[str, Any]
KNOWN_PARTS = {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}


@dataclass(frozen=True)
class Ask:
    """One request; `context` holds the condition keys that it carries, and lacks those that it does not."""

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)


def allowed(ask: Ask, identity: Iterable[Statement], resource: Iterable[Statement] = ()) -> bool:
    """Whether an identity of the bucket's own account may; resource policies here only deny."""
    own, others = list(identity), list(resource)
    if any(applies(statement, ask) for statement in [*own, *others] if statement["Effect"] == "Deny"):
        return False
    return any(applies(statement, ask) for statement in own if statement["Effect"] == "Allow")


def applies(statement: Statement, ask: Ask) -> bool:
    unknown = set(statement) - KNOWN_PARTS
    if unknown or statement.get("Principal", "*") != "*":
        raise ValueError(f"the statement {statement.get('Sid')} says what this reader does not know: "
                         f"{unknown or statement['Principal']}")
    return (any(fnmatchcase(ask.action.lower(), action.lower()) for action in listed(statement["Action"]))
            and any(fnmatchcase(ask.resource, pattern) for pattern in listed(statement["Resource"]))
            and all(holds(operator, key, listed(wanted), ask.context)
                    for operator, keys in statement.get("Condition", {}).items() for key, wanted in keys.items()))


def holds(operator: str, key: str, wanted: list[str], context: Mapping[str, str]) -> bool:
    found = context.get(key)
    if operator == "Null":
        return (found is None) == (wanted == ["true"])
    if operator.endswith("IfExists"):
        if found is None:
            return True
        operator = operator.removesuffix("IfExists")
    if operator == "StringNotEquals":
        return found is None or found not in wanted
    compare: dict[str, Callable[[str, str], bool]] = {
        "Bool": lambda have, want: have == want,
        "StringEquals": lambda have, want: have == want,
        "NumericLessThan": lambda have, want: float(have) < float(want)}
    return found is not None and any(compare[operator](found, want) for want in wanted)


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
