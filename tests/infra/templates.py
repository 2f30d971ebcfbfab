"""Reading the CloudFormation templates and the policy files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
ROLES = ("reader", "editor", "approver", "promoter")
KEY_ARN = "KEY_ARN"


def template(name: str) -> dict[str, Any]:
    return yaml.safe_load((INFRA / f"{name}.yaml").read_text())


def plain(node: Any) -> Any:
    """A template's part with BUCKET, PREFIX and KEY_ARN put in for what they stand for."""
    if node == {"Fn::GetAtt": ["Key", "Arn"]}:
        return KEY_ARN
    if isinstance(node, dict) and set(node) == {"Fn::Sub"}:
        text = node["Fn::Sub"].replace("${AWS::Partition}", "aws")
        return text.replace("${BucketName}", "BUCKET").replace("${Prefix}", "PREFIX")
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    return [plain(value) for value in node] if isinstance(node, list) else node


def statements(name: str) -> list[dict[str, Any]]:
    """A policy file's statements."""
    return json.loads((INFRA / "policies" / f"{name}.json").read_text())["Statement"]
