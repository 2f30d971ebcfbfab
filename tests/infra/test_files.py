"""The files under infra/ and prefect.yaml: they parse, agree with the code, and give away no more than they must."""

from __future__ import annotations

import importlib
import inspect
import io
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.infra.templates import INFRA, ROOT, statements, template

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
COMPOSE_TEXT = (INFRA / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
DOCKERFILE = (INFRA / "Dockerfile").read_text()


@pytest.mark.parametrize("entrypoint", sorted({deployment["entrypoint"] for deployment in DEPLOYMENTS}))
def test_every_entrypoint_is_a_flow(entrypoint: str) -> None:
    from prefect import Flow

    path, _, name = entrypoint.partition(":")
    assert (ROOT / path).is_file()
    flow = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)
    assert isinstance(flow, Flow)
    assert flow.name == name


def test_prefects_own_loader_reads_every_deployment() -> None:
    from prefect.cli.deploy._config import _load_deploy_configs_and_actions
    from rich.console import Console

    said = io.StringIO()
    found, actions = _load_deploy_configs_and_actions(ROOT / "prefect.yaml", console=Console(file=said))
    assert said.getvalue() == "", "it prints what it cannot read, and goes on without it"
    assert [(one["name"], one["entrypoint"]) for one in found] == [(one["name"], one["entrypoint"]) for one in DEPLOYMENTS]
    assert len(actions["pull"]) == 1


def test_every_flow_of_the_house_is_deployed() -> None:
    flows = {f"{path.relative_to(ROOT)}:{name}" for path in (ROOT / "flows").glob("*.py")
             for name in re.findall(r"^@flow\(name=\"(\w+)\"", path.read_text(), re.MULTILINE)}
    assert {deployment["entrypoint"] for deployment in DEPLOYMENTS} == flows


def test_each_flow_is_deployed_once_to_each_pool_and_runs_one_at_a_time() -> None:
    places = {(deployment["name"], deployment["entrypoint"]) for deployment in DEPLOYMENTS}
    assert len(places) == len(DEPLOYMENTS) == 4 * 10
    for deployment in DEPLOYMENTS:
        assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
        assert ("pull" in deployment) == (deployment["name"] != "local"), "a container would inherit the laptop's path"
        assert deployment.get("pull", []) == []
        assert not any(schedule["active"] for schedule in deployment.get("schedules", []))


def test_every_parameter_of_a_schedule_or_trigger_is_one_of_the_flow() -> None:
    for deployment in DEPLOYMENTS:
        path, _, name = deployment["entrypoint"].partition(":")
        flow = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)
        starts = [*deployment.get("schedules", []), *deployment.get("triggers", [])]
        for given in (start["parameters"] for start in starts):
            flow.validate_parameters(given)
        needed = {parameter for parameter, one in inspect.signature(flow.fn).parameters.items() if one.default is one.empty}
        assert all(needed <= set(start["parameters"]) for start in starts), deployment


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
    for final in ("suture", "cuda", "servers"):
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


def test_bucket_is_versioned_private_and_kept() -> None:
    bucket = template("bucket")["Resources"]["Bucket"]
    assert bucket["DeletionPolicy"] == "Retain"
    assert bucket["Properties"]["VersioningConfiguration"] == {"Status": "Enabled"}
    assert set(bucket["Properties"]["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["Properties"]["ObjectLockConfiguration"]["ObjectLockEnabled"] == "Enabled"
    assert {statement["Effect"] for statement in statements("bucket")} == {"Deny"}
