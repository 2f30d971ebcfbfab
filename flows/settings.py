"""Everything that depends on the place where Suture runs. Read once, here; nothing below `flows` reads the environment."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from editors.errors import ConfigError


class Settings(BaseSettings):
    """Settings from `SUTURE_*` variables, or from `suture.toml` in the working directory."""

    model_config = SettingsConfigDict(env_prefix="SUTURE_", toml_file="suture.toml", extra="forbid", frozen=True,
                                      env_ignore_empty=True)

    home: Path = Path("~/.suture")
    """Caches, finished stages, and the data of the embedded services."""
    store: str | None = None
    """`s3://bucket/prefix` of the team's store. None: the embedded S3 server."""
    endpoint_url: str | None = None
    """S3 endpoint other than AWS; AWS_ENDPOINT_URL_S3 works too. Keys come from boto3's own chain."""
    ca_bundle: Path | None = None
    """Certificate authority of a private endpoint, PEM."""
    kms_key: str | None = None
    """AWS KMS key, by ARN or alias, for what is written to the store. None: the bucket's own encryption."""
    lock_days: float | None = Field(None, gt=0, le=36500)
    """Days for which releases, decisions, the ledger and their blobs cannot be destroyed, where the bucket has object lock.
    None: as the bucket says. Longer than any rollback, shorter than any duty to erase."""
    mlflow_uri: str | None = Field(None, validation_alias=AliasChoices("SUTURE_MLFLOW_URI", "MLFLOW_TRACKING_URI"))
    """MLflow tracking and registry server. None: SQLite in the home."""
    prefect_api_url: str | None = Field(None, validation_alias=AliasChoices("SUTURE_PREFECT_API_URL", "PREFECT_API_URL"))
    """Prefect server. None: an embedded one on loopback."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    user: str = Field(default_factory=getpass.getuser)
    """The name that requests and approvals carry when none is given."""
    linger_seconds: float = Field(30.0, ge=0, le=3600)
    """How long the embedded services stay for the next command after the last one ended."""

    notify: SecretStr | None = None
    """Whom to tell of a candidate that waits, a refusal, a promotion, a rollback and an alarm: Apprise addresses, parted by
    spaces. None: nobody."""

    log_format: Literal["text", "json"] = "text"
    """Log lines for people, or one JSON document a line, with run, stage and request ids."""
    system_metrics_seconds: float = Field(0.0, ge=0, le=3600)
    """How often MLflow samples processor, memory, disk, network and GPU while a sheet is carried out. 0: never."""

    webhook_secret: SecretStr | None = None
    """What the registry's webhooks are signed with; `suture listen` believes no other."""

    privacy_key: SecretStr | None = None
    """Key of the seals of forget requests, 32 characters or more. None: `privacy_key_file`."""
    privacy_key_file: Path | None = None
    """A file with the key, closed to others. None: `privacy.key` in the home, made when it is needed first."""

    signing_key: Path | None = None
    """Private key that signs releases, PEM, closed to others. None: releases stay unsigned."""
    signing_certificate: Path | None = None
    """Certificate of `signing_key`, PEM. None: signatures name the bare key."""
    signing_chain: Path | None = None
    """Certificates between `signing_certificate` and its authority, PEM."""
    verify_key: Path | None = None
    """Public key whose signatures count, PEM. With it or with `verify_authorities` no release is read unsigned."""
    verify_authorities: Path | None = None
    """Certificates of authorities; signatures by whoever has a certificate of theirs count, PEM."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment, then `suture.toml`."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def root(self) -> Path:
        """The home, absolute."""
        return self.home.expanduser().absolute()

    @property
    def cache(self) -> Path:
        """Converted models and second moments: may be deleted at any time."""
        return self.root / "cache"


def read_settings() -> Settings:
    """The settings of this process.

    Raises:
        ConfigError: a variable or a key of `suture.toml` is unknown or out of range; all are named.
    """
    try:
        return Settings()  # type: ignore[call-arg]
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}{_given(problem)}" for problem in error.errors()]
        raise ConfigError("the settings are wrong: " + "; ".join(lines), "mend the SUTURE_* variable or suture.toml") from error


def _given(problem: Any) -> str:
    """What was given, unless it may be a key."""
    return "" if any(word in str(problem["loc"]) for word in ("key", "notify", "secret")) else f", got {problem['input']!r}"
