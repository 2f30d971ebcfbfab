"""MLflow: one run and one model version for each judged candidate; approval and promotion mirrored as tags and aliases.

The registry shows, the object store decides: everything here can be set again from the store's records, and each
function may be called again after a kill. A version is created last, so a version that exists is complete.
"""

from __future__ import annotations

import logging
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from editors.digest import digest_file
from editors.errors import BaseNotFound, ConfigError, IntegrityError, ServiceError
from tasks import run_record, tracking
from tasks.run_record import APPROVAL, DIGEST, PASSED, VERDICT, Submission
from tasks.tracking import ChannelTruth, RegisteredVersion, ResolvedModel

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

EXPERIMENT = "suture"
SERVING_CODE = Path(__file__).with_name("serving.py")
SERVING_PACKAGES = ("mlflow", "torch", "transformers", "safetensors")
MODEL_ID = "suture.model_id"
CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"

logger = logging.getLogger(__name__)


def prepare(tracking_uri: str, artifact_root: str | None) -> str:
    """Make the database and the experiment where they are not there yet; returns the experiment's id.

    Takes some seconds the first time. `artifact_root` None leaves the place of files to the tracking server.

    Raises:
        ServiceError: the tracking server cannot be reached, or failed.
    """
    with registry(tracking_uri) as client, tracking.only_here(tracking_uri):
        found = client.get_experiment_by_name(EXPERIMENT)
        return found.experiment_id if found else client.create_experiment(EXPERIMENT, artifact_location=artifact_root)


def register_candidate(tracking_uri: str, artifact_root: str | None, submission: Submission) -> RegisteredVersion:
    """The version of a judged candidate, made now or found; the alias `candidate` is on the newest that may be approved.

    Raises:
        ConfigError: the registered model's name belongs to another line.
        ServiceError: the tracking server cannot be reached, or failed.
    """
    experiment = prepare(tracking_uri, artifact_root)
    candidate = submission.candidate
    name = tracking.registered_name(candidate.model, candidate.channel)
    tags = run_record.version_tags(submission)
    with registry(tracking_uri) as client:
        _own_registered_model(client, name, candidate.model, candidate.channel)
        found = _versions(client, {DIGEST: tags[DIGEST], VERDICT: tags[VERDICT]}, name)
        made = _record(found[0]) if found else _create_version(client, experiment, name, submission, tags)
        _point_candidate(client, name)
        return made


def find_version(tracking_uri: str, digest: str) -> RegisteredVersion | None:
    """The newest version of a candidate digest; None when this registry has none.

    Raises:
        ServiceError: the tracking server cannot be reached, or failed.
    """
    if not tracking.exists(tracking_uri):
        return None
    with registry(tracking_uri) as client:
        found = _versions(client, {DIGEST: digest})
        return _record(found[0]) if found else None


def mark_approval(tracking_uri: str, model: str, digest: str, decision: Literal["approve", "refuse"],
                  by: str) -> RegisteredVersion | None:
    """Show a decision of the store at the version; None when this registry has no such version. Raises as `find_version`."""
    version = find_version(tracking_uri, digest)
    if version is None:
        logger.info("version %s of %s is not in the registry %s", digest[:12], model, tracking_uri)
        return None
    with registry(tracking_uri) as client:
        _set_tags(client, version, {APPROVAL: {"approve": "approved", "refuse": "refused"}[decision], "suture.decided_by": by})
        _point_candidate(client, version.name)
    return version


def mirror_promotion(tracking_uri: str, truth: ChannelTruth) -> dict[str, RegisteredVersion]:
    """Put `champion` and `previous` where the store says; returns the aliases that are set.

    An alias whose version this registry does not have is removed: no alias is better than a wrong one. Raises as
    `find_version` does.
    """
    if not tracking.exists(tracking_uri):
        return {}
    name = tracking.registered_name(truth.model, truth.channel)
    placed: dict[str, RegisteredVersion] = {}
    with registry(tracking_uri) as client:
        aliases = _aliases(client, name)
        for alias, digest in ((CHAMPION, truth.champion), (PREVIOUS, truth.previous)):
            found = _versions(client, {DIGEST: digest}, name) if digest else []
            _place(client, name, aliases, alias, found[0] if found else None)
            if found:
                placed[alias] = _record(found[0])
        if CHAMPION in placed:
            _set_tags(client, placed[CHAMPION], {APPROVAL: "approved"})
    return placed


def resolve_model_uri(tracking_uri: str, reference: str, folder: Path) -> ResolvedModel:
    """The base and the patches behind `models:/name@alias` or `models:/name/number`; patches are fetched into `folder`.

    Raises:
        BaseNotFound: there is no such version, or it was not made by Suture.
        IntegrityError: a fetched patch is not the one that was registered.
        ServiceError: the tracking server cannot be reached, or failed.
    """
    parts = tracking.REFERENCE.match(reference)
    if parts is None:
        raise BaseNotFound(f"{reference!r} is no registry reference", "write models:/name@alias or models:/name/number")
    with registry(tracking_uri) as client:
        version = _get_version(client, parts, reference)
        if DIGEST not in version.tags:
            raise BaseNotFound(f"{reference} was not registered by Suture, so it names no base and no patches",
                               "give its base as a folder, a hub id or s3://...")
        config, patches = _download(tracking_uri, version, folder)
    for path, digest in zip(patches, config["patches"], strict=True):
        if digest_file(path / "patch.json") != digest:
            raise IntegrityError(f"{reference}: {path.name} is not patch {digest}", "register the candidate again")
    return ResolvedModel(_record(version), config["reference"], config["base_digest"], Path(config["base"]), patches)


@contextmanager
def registry(tracking_uri: str) -> Iterator[MlflowClient]:
    """A client that needs no global state; what MLflow raises comes out as a ServiceError."""
    tracking.check_reachable(tracking_uri)
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for name in ("mlflow", "alembic"):
        # each tells at length how it makes the tables
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with tracking.only_here(tracking_uri):
            client = mlflow.MlflowClient(tracking_uri, registry_uri=tracking_uri)
        # MLflow prints addresses on standard output, which belongs to the command's answer
        with redirect_stdout(sys.stderr):
            yield client
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ServiceError(f"MLflow at {tracking_uri} failed: {reason}",
                           "mend it, then run the same command again: what was finished is found") from error


def _create_version(client: MlflowClient, experiment: str, name: str, submission: Submission,
                    tags: Mapping[str, str]) -> RegisteredVersion:
    run_id, model_id = _finished_run(client, experiment, tags) or _log_run(client, experiment, submission, tags)
    # the place itself: a `models:/` source would be looked up at MLflow's global tracking address, which may be another
    place = client.get_logged_model(model_id).artifact_location
    description = run_record.description_of(submission)
    return _record(client.create_model_version(name, place, run_id, dict(tags), description=description, model_id=model_id))


def _finished_run(client: MlflowClient, experiment: str, tags: Mapping[str, str]) -> tuple[str, str] | None:
    """The run of an earlier try that got as far as its end; tries that a kill cut short are closed."""
    query = " and ".join(f"tags.`{key}` = '{tags[key]}'" for key in (DIGEST, VERDICT))
    for run in client.search_runs([experiment], query):
        if run.info.status == "FINISHED" and MODEL_ID in run.data.tags:
            return run.info.run_id, run.data.tags[MODEL_ID]
        if run.info.status == "RUNNING":
            client.set_terminated(run.info.run_id, "KILLED")
    return None


def _log_run(client: MlflowClient, experiment: str, submission: Submission, tags: Mapping[str, str]) -> tuple[str, str]:
    from mlflow.entities import LoggedModelOutput, Metric, Param

    candidate = submission.candidate
    run = client.create_run(experiment, tags=dict(tags), run_name=f"{candidate.version} {submission.method}")
    run_id, status = run.info.run_id, "FAILED"
    try:
        with tempfile.TemporaryDirectory() as scratch:
            run_record.write_files(submission, Path(scratch) / "run")
            client.log_artifacts(run_id, str(Path(scratch) / "run"))
            model_id = _log_model(client, experiment, run_id, submission, Path(scratch))
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
        now, params = int(time.time() * 1000), run_record.parameters_of(submission)
        metrics = run_record.metrics_of(submission.measurements) | run_record.judged_by(submission.verdict)
        client.log_batch(run_id, params=[Param(key, value) for key, value in params.items()],
                         metrics=[Metric(key, value, now, 0, model_id=model_id) for key, value in metrics.items()])
        client.set_tag(run_id, MODEL_ID, model_id)
        status = "FINISHED"
    finally:
        client.set_terminated(run_id, status)
    return run_id, model_id


def _log_model(client: MlflowClient, experiment: str, run_id: str, submission: Submission, scratch: Path) -> str:
    import mlflow

    candidate, patches = submission.candidate, scratch / "patches"
    run_record.write_stack(submission, patches)
    model = client.create_logged_model(experiment, "edited", run_id, tags={DIGEST: candidate.digest}, model_type="edit")
    config = {"base": str(submission.base_folder), "reference": candidate.base.name,
              "base_digest": candidate.base.digest, "patches": [entry.digest for entry in candidate.stack]}
    with warnings.catch_warnings():
        # an input example would load the model here, which takes seconds and shows nothing new
        warnings.filterwarnings("ignore", message=".*input example was not provided.*")
        mlflow.pyfunc.save_model(
            scratch / "model", python_model=str(SERVING_CODE), artifacts={"patches": str(patches)}, model_config=config,
            signature=_signature(), mlflow_model=mlflow.models.Model(run_id=run_id, model_id=model.model_id),
            # given, because MLflow would load the model and ask package indexes to find them out
            pip_requirements=[f"{name}=={installed(name).partition('+')[0]}" for name in SERVING_PACKAGES])
    client.log_model_artifacts(model.model_id, str(scratch / "model"))
    client.finalize_logged_model(model.model_id, "READY")
    return model.model_id


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    return ModelSignature(Schema([ColSpec("string")]), Schema([ColSpec("string")]), ParamSchema([
        ParamSpec("max_new_tokens", "integer", 64), ParamSpec("chat", "boolean", False)]))


def _own_registered_model(client: MlflowClient, name: str, model: str, channel: str) -> None:
    found = client.search_registered_models(f"name = '{name}'")
    line = {"suture.model": model, "suture.channel": channel}
    if not found:
        client.create_registered_model(name, line)
    elif {key: found[0].tags.get(key) for key in line} != line:
        raise ConfigError(f"the registered model {name} belongs to another line: {found[0].tags}",
                          "give the sheet another `model` or `channel`")


def _versions(client: MlflowClient, tags: Mapping[str, str], name: str | None = None) -> list[ModelVersion]:
    """Versions with all these tags, newest first."""
    parts = [f"tags.`{key}` = '{value}'" for key, value in tags.items()] + ([f"name = '{name}'"] if name else [])
    found = client.search_model_versions(" and ".join(parts))
    return sorted(found, key=lambda version: int(version.version), reverse=True)


def _point_candidate(client: MlflowClient, name: str) -> None:
    open_versions = [version for version in _versions(client, {PASSED: "passed"}, name)
                     if version.tags.get(APPROVAL) != "refused"]
    _place(client, name, _aliases(client, name), CANDIDATE, open_versions[0] if open_versions else None)


def _aliases(client: MlflowClient, name: str) -> dict[str, str]:
    found = client.search_registered_models(f"name = '{name}'")
    return {alias: str(number) for alias, number in found[0].aliases.items()} if found else {}


def _place(client: MlflowClient, name: str, aliases: Mapping[str, str], alias: str, version: ModelVersion | None) -> None:
    if version is not None and aliases.get(alias) != str(version.version):
        client.set_registered_model_alias(name, alias, str(version.version))
    elif version is None and alias in aliases:
        client.delete_registered_model_alias(name, alias)


def _set_tags(client: MlflowClient, version: RegisteredVersion, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        client.set_model_version_tag(version.name, str(version.number), key, value)


def _get_version(client: MlflowClient, parts: re.Match[str], reference: str) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    try:
        name, alias, number = parts.group("name", "alias", "number")
        return client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise BaseNotFound(f"the registry has no version {reference}", "see the versions in MLflow's Models page") from error


def _download(tracking_uri: str, version: ModelVersion, folder: Path) -> tuple[dict[str, Any], tuple[Path, ...]]:
    import mlflow

    folder.mkdir(parents=True, exist_ok=True)
    path = mlflow.artifacts.download_artifacts(version.source, dst_path=str(folder), tracking_uri=tracking_uri)
    flavour = mlflow.models.Model.load(path).flavors["python_function"]
    return flavour["config"], tuple(sorted((Path(path) / flavour["artifacts"]["patches"]["path"]).iterdir()))


def _record(version: ModelVersion) -> RegisteredVersion:
    return RegisteredVersion(version.name, int(version.version), version.run_id or "")
