"""The Dockerfile by hadolint, and the Kubernetes manifests against the schemas of the versions that are in use."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.infra.templates import INFRA, ROOT

MANIFESTS = INFRA / "kubernetes"
KUSTOMIZATION = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())
POOL = json.loads((MANIFESTS / "pool.json").read_text())
VERSIONS = ("1.31", "1.34", "1.37")
HADOLINT = Path(sys.executable).parent / "hadolint"


def documents() -> list[dict[str, Any]]:
    return [document for name in KUSTOMIZATION["resources"] for document in yaml.safe_load_all((MANIFESTS / name).read_text())]


def rendered(given: dict[str, Any]) -> dict[str, Any]:
    """The job that a worker makes of the pool's template: variables filled in, what has no value left out."""
    from prefect.utilities.templating import apply_values

    defaults = {name: one["default"] for name, one in POOL["variables"]["properties"].items() if "default" in one}
    filled = apply_values(POOL["job_configuration"], {**defaults, **given}, remove_notset=True)
    job = filled["job_manifest"]
    job["spec"]["template"]["spec"]["containers"][0].setdefault("env", [])
    return job


def test_hadolint_finds_nothing() -> None:
    shown = subprocess.run([HADOLINT, INFRA / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stdout) == (0, "")
    broken = (INFRA / "Dockerfile").read_text().replace("RUN python -m venv", "RUN sudo python -m venv")
    shown = subprocess.run([HADOLINT, "-"], input=broken, capture_output=True, text=True, check=False)
    assert "DL3004" in shown.stdout, "a lint that finds nothing in a broken file proves nothing"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_fits_the_schema(version: str) -> None:
    found = documents()
    assert [document["kind"] for document in found] == [
        "Namespace", "ServiceAccount", "ServiceAccount", "Role", "RoleBinding", "Deployment", "NetworkPolicy"]
    for document in [*found, rendered({"image": "suture:0.1.0", "gpu_limit": 1, "cpu_request": "2", "memory_limit": "8Gi"})]:
        kubernetes_validate.validate(document, version, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**found[-2], "spec": {"replica": 1}}, version, strict=True)


def test_the_kustomization_names_every_file_and_every_image() -> None:
    assert sorted(KUSTOMIZATION["resources"]) == sorted(
        path.name for path in MANIFESTS.glob("*.yaml") if path.name != "kustomization.yaml")
    images = {container["image"] for document in documents() if document["kind"] == "Deployment"
              for container in document["spec"]["template"]["spec"]["containers"]}
    assert images == {image["name"] for image in KUSTOMIZATION["images"]}
    locked = re.search(r"^prefect==(.+)$", (INFRA / "requirements.lock").read_text(), re.MULTILINE)
    assert KUSTOMIZATION["images"][0]["newTag"].startswith(f"{locked.group(1)}-")


def test_what_pods_name_is_there() -> None:
    by_kind = [(document["kind"], document["metadata"]["name"]) for document in documents()]
    worker = next(document for document in documents() if document["kind"] == "Deployment")["spec"]["template"]["spec"]
    assert ("ServiceAccount", worker["serviceAccountName"]) in by_kind
    assert ("ServiceAccount", rendered({})["spec"]["template"]["spec"]["serviceAccountName"]) in by_kind
    assert [part["configMapRef"]["name"] for part in worker["containers"][0]["envFrom"]] == [
        generated["name"] for generated in KUSTOMIZATION["configMapGenerator"]]
    values = dict(literal.split("=", 1) for literal in KUSTOMIZATION["configMapGenerator"][0]["literals"])
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    pools = {deployment["work_pool"]["name"] for deployment in deployments}
    assert values["WORK_POOL"] in pools


@pytest.mark.parametrize("kind", ["worker", "job"])
def test_every_pod_is_admitted_where_the_restricted_standard_is_enforced(kind: str) -> None:
    namespace, *_ = documents()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pod = (rendered({"image": "suture:0.1.0"}) if kind == "job"
           else next(document for document in documents() if document["kind"] == "Deployment"))["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {next(iter(set(volume) - {"name"})) for volume in pod["volumes"]} <= {"emptyDir", "configMap", "secret"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for container in pod["containers"]:
        guard = container["securityContext"]
        assert guard["capabilities"] == {"drop": ["ALL"]}
        assert (guard["allowPrivilegeEscalation"], guard["readOnlyRootFilesystem"]) == (False, True)
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_worker_may_start_jobs_and_the_flows_nothing() -> None:
    role = next(document for document in documents() if document["kind"] == "Role")
    changes = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
               if verb not in ("get", "list", "watch")}
    assert changes == {("jobs", verb) for verb in ("create", "patch", "delete")}
    flows = next(document for document in documents()
                 if document["kind"] == "ServiceAccount" and document["metadata"]["name"] == "suture")
    assert flows["automountServiceAccountToken"] is False


def test_the_pool_has_every_variable_of_prefects_own_and_a_gpu_where_one_is_asked_for() -> None:
    import prefect

    shipped = Path(prefect.__file__).parent / "server/api/collections_data/views/aggregate-worker-metadata.json"
    workers = {name: worker for package in json.loads(shipped.read_text()).values() for name, worker in package.items()}
    own = workers["kubernetes"]["default_base_job_configuration"]
    assert set(POOL["variables"]["properties"]) == {*own["variables"]["properties"], "gpu_limit"}
    assert set(POOL["job_configuration"]) == set(own["job_configuration"])

    def limits(given: dict[str, Any]) -> dict[str, Any]:
        return rendered(given)["spec"]["template"]["spec"]["containers"][0]["resources"].get("limits", {})

    assert limits({"gpu_limit": 1}) == {"nvidia.com/gpu": 1}
    assert limits({}) == {}
