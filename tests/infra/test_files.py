"""The files under infra/ and prefect.yaml: they parse, agree with the code, and give away no more than they must."""

from __future__ import annotations

import importlib
import json
import re
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks import manifest
from tasks.store import PROBE_KEY, blob_key

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
COMPOSE_TEXT = (INFRA / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
TEMPLATE = yaml.safe_load((INFRA / "bucket.yaml").read_text())["Resources"]
DOCKERFILE = (INFRA / "Dockerfile").read_text()
WRITE_ONCE = (manifest.release_key("m", "v"), manifest.decision_key("m", "d"), manifest.ledger_key("m", 7))
CANDIDATE, POINTER = manifest.candidate_key("m", "v"), manifest.channel_key("m", "demo")


@pytest.mark.parametrize("entrypoint", sorted({deployment["entrypoint"] for deployment in DEPLOYMENTS}))
def test_every_entrypoint_is_a_flow(entrypoint: str) -> None:
    from prefect import Flow

    path, _, name = entrypoint.partition(":")
    assert (ROOT / path).is_file()
    flow = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)
    assert isinstance(flow, Flow)
    assert flow.name == name


def test_each_flow_is_deployed_once_to_each_pool_and_runs_one_at_a_time() -> None:
    places = {(deployment["name"], deployment["entrypoint"]) for deployment in DEPLOYMENTS}
    assert len(places) == len(DEPLOYMENTS) == 20
    for deployment in DEPLOYMENTS:
        assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
        assert ("pull" in deployment) == (deployment["name"] != "local"), "a container would inherit the laptop's path"
        assert deployment.get("pull", []) == []
        assert not any(schedule["active"] for schedule in deployment.get("schedules", []))


def test_job_variables_are_those_of_the_workers() -> None:
    import prefect

    shipped = Path(prefect.__file__).parent / "server/api/collections_data/views/aggregate-worker-metadata.json"
    workers = {name: worker for package in json.loads(shipped.read_text()).values() for name, worker in package.items()}
    for deployment in DEPLOYMENTS:
        pool = deployment["work_pool"]
        known = workers[pool["name"].removeprefix("suture-")]["default_base_job_configuration"]["variables"]["properties"]
        assert set(pool.get("job_variables", {})) <= set(known), pool["name"]


def test_settings_and_versions_named_here_exist() -> None:
    from flows.settings import Settings

    named = set(re.findall(r"\bSUTURE_([A-Z_]+)\b(?=:|=)", COMPOSE_TEXT + DOCKERFILE + (ROOT / "prefect.yaml").read_text()))
    assert {"STORE", "HOME"} <= named
    assert {name.lower() for name in named} <= set(Settings.model_fields)
    images = re.findall(r"\bsuture(?:-servers)?:(\d[\w.]*)", COMPOSE_TEXT + (ROOT / "prefect.yaml").read_text())
    assert images
    assert set(images) == {PROJECT["project"]["version"]}


def test_image_holds_every_package_from_the_locks_and_runs_as_nobody() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    kept = set(re.findall(r"^!(.+)$", (INFRA / "Dockerfile.dockerignore").read_text(), re.MULTILINE))
    assert sources == kept
    assert {package.split(".")[0] for package in PROJECT["tool"]["setuptools"]["packages"]} <= sources
    assert all((ROOT / source).exists() for source in sources if source not in ("README.md", "LICENSE"))
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    names = {stage.split("\n")[0].split(" AS ")[1]: stage for stage in stages}
    assert list(names)[-1] == "suture", "a build without --target makes the last stage"
    assert "USER 10001:10001" in names["runtime"]
    for final in ("suture", "servers"):
        assert names[final].startswith("runtime AS")
        assert "USER" not in names[final]
    for lock in ("carried", "servers"):
        assert f"--no-deps --require-hashes -r infra/{lock}.lock" in DOCKERFILE
        requirements = [line for line in (INFRA / f"{lock}.lock").read_text().splitlines() if "==" in line]
        assert all(line.endswith("\\") for line in requirements), "a pin without a hash"


def test_servers_are_open_on_loopback_only_and_every_secret_is_demanded() -> None:
    for name, service in COMPOSE["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert set(service.get("networks", [])) <= set(COMPOSE["networks"])
        assert {mount.split(":")[0] for mount in service.get("volumes", [])} <= set(COMPOSE["volumes"])
        assert {mount["source"] for mount in service.get("configs", [])} <= set(COMPOSE["configs"])
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])
    used = set(re.findall(r"\$\{(\w+)\}", COMPOSE_TEXT))
    demanded = set(re.findall(r"\$\{(\w+):\?", COMPOSE_TEXT))
    assert used <= demanded, "compose would put an empty secret in"
    recipe = (INFRA / "README.md").read_text()
    assert all(name in recipe for name in demanded)
    for name in ("prefect", "mlflow", "worker"):
        service = COMPOSE["services"][name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])


def test_each_key_of_the_compose_store_opens_one_bucket() -> None:
    identities = json.loads(re.sub(r"\$\{\w+\}", "secret", COMPOSE["configs"]["identities"]["content"]))["identities"]
    for identity in identities:
        assert {action.split(":")[1] for action in identity["actions"]} == {identity["name"]}
    assert [identity["name"] for identity in identities] == ["suture", "mlflow"]


def plain(node: Any) -> Any:
    """A template's part with BUCKET and PREFIX put in for its parameters."""
    if isinstance(node, dict) and set(node) == {"Fn::Sub"}:
        text = node["Fn::Sub"].replace("${AWS::Partition}", "aws")
        return text.replace("${BucketName}", "BUCKET").replace("${Prefix}", "PREFIX")
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    return [plain(value) for value in node] if isinstance(node, list) else node


def statements(name: str) -> list[dict[str, Any]]:
    return json.loads((INFRA / "policies" / f"{name}.json").read_text())["Statement"]


def listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def allows(name: str, action: str, key: str) -> bool:
    resource = f"arn:aws:s3:::BUCKET/PREFIX/{key}"
    return any(action in listed(statement["Action"]) and matches(resource, statement)
               for statement in statements(name) if statement["Effect"] == "Allow")


def matches(resource: str, statement: dict[str, Any]) -> bool:
    return any(fnmatchcase(resource, pattern) for pattern in listed(statement["Resource"]))


@pytest.mark.parametrize("name", ["bucket", "reader", "editor", "promoter"])
def test_policy_files_are_those_of_the_template(name: str) -> None:
    document = json.loads((INFRA / "policies" / f"{name}.json").read_text())
    assert document == plain(TEMPLATE[f"{name.title()}Policy"]["Properties"]["PolicyDocument"])


def test_bucket_is_versioned_private_and_kept() -> None:
    bucket = TEMPLATE["Bucket"]
    assert bucket["DeletionPolicy"] == "Retain"
    assert bucket["Properties"]["VersioningConfiguration"] == {"Status": "Enabled"}
    assert set(bucket["Properties"]["PublicAccessBlockConfiguration"].values()) == {True}
    denied = {statement["Sid"]: statement for statement in statements("bucket")}
    assert {statement["Effect"] for statement in denied.values()} == {"Deny"}
    assert denied["OnlyOverTls"]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_bucket_guards_every_record_and_pointer_that_the_code_writes() -> None:
    guards = {statement["Sid"]: statement for statement in statements("bucket")}
    once, moved = guards["RecordsAreWrittenOnce"], guards["TheRestMovesByCompareAndSwap"]
    for keys, guard, other in ((WRITE_ONCE, once, moved), ((CANDIDATE, POINTER), moved, once)):
        for key in keys:
            assert matches(f"arn:aws:s3:::BUCKET/PREFIX/{key}", guard), key
            assert not matches(f"arn:aws:s3:::BUCKET/PREFIX/{key}", other), key
    assert once["Condition"] == {"Null": {"s3:if-none-match": "true"}}
    assert moved["Condition"] == {"Null": {"s3:if-none-match": "true", "s3:if-match": "true"}}


def test_roles_may_do_their_work_and_no_more() -> None:
    blob = blob_key("0" * 64)
    for key in (*WRITE_ONCE, CANDIDATE, POINTER, blob, PROBE_KEY):
        assert allows("reader", "s3:GetObject", key)
        assert allows("editor", "s3:GetObject", key)
        assert not allows("reader", "s3:PutObject", key)
        assert allows("editor", "s3:PutObject", key) == (key in (CANDIDATE, blob, PROBE_KEY)), key
        assert allows("promoter", "s3:PutObject", key) == (key in (*WRITE_ONCE, POINTER)), key
        assert allows("editor", "s3:DeleteObject", key) == (key in (blob, PROBE_KEY)), key
    for name in ("reader", "editor", "promoter"):
        granted = {action for statement in statements(name) for action in listed(statement["Action"])}
        assert granted <= {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:DeleteObject"}
