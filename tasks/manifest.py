"""What lies in the store beside the blobs: candidates, releases, decisions, pointers and ledger entries.

Every record is canonical JSON, so the same value has the same bytes and the same digest on every machine. A version is
the first twelve characters of its digest, which covers the base, the ordered patches and the baked checkpoint: who knows
the version's digest can check all of it. Reading a record checks that; bytes that do not fit are an IntegrityError.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from editors.contract import Frozen
from editors.digest import digest_bytes, digest_document
from editors.errors import ConfigError, IntegrityError
from tasks.sealed import Digest, Sealed, serialise

VERSION_LENGTH = 12
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Version = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._ -]*$")]
"""A plain name: a manifest can never make a pull write outside its folder."""


def candidate_digest(base_digest: str, patch_digests: Sequence[str], checkpoint_digest: str) -> str:
    """The name of one exact candidate: its base, its ordered patches, and the weights, config and tokenizer they give."""
    return digest_document({"base": base_digest, "patches": list(patch_digests), "checkpoint": checkpoint_digest})


def version_of(digest: str) -> str:
    """The version under which a digest is known."""
    return digest[:VERSION_LENGTH]


def base_version(base_digest: str) -> str:
    """The version of the unedited base: an empty stack over itself."""
    return version_of(candidate_digest(base_digest, (), base_digest))


class Blob(Frozen):
    """Bytes under `blobs/sha256/<sha256>`."""

    sha256: Digest
    size_bytes: int = Field(ge=0)


class BaseReference(Frozen):
    """The unedited model: the reference in the sheet, and the checkpoint's digest, which is what counts."""

    name: str
    digest: Digest


class StackEntry(Frozen):
    """One accepted edit: its patch, and its requests, which every later edit of the line measures again."""

    document: Blob
    """`patch.json`; its digest is the patch's digest."""
    tensors: Blob
    """`patch.safetensors`."""
    batch: Blob
    """The EditBatch as canonical JSON; its digest is the batch's digest."""
    purpose: str
    method: str
    request_count: int = Field(ge=1)

    @property
    def digest(self) -> str:
        """The patch's digest."""
        return self.document.sha256


class Contents(Frozen):
    """What a version is, approved or not."""

    model: str
    version: Version
    digest: Digest
    base: BaseReference
    parent: Version | None
    """The version it was made on top of and measured against; None for the unedited base."""
    stack: tuple[StackEntry, ...]
    checkpoint: Digest
    """`Checkpoint.digest` of the baked folder."""
    files: Mapping[FileName, Blob]
    """The Hugging Face folder, name by name."""
    verdict: Blob | None
    """The Verdict as canonical JSON, its digest the verdict's digest; None for the unedited base."""
    artefacts: Mapping[FileName, Blob] = {}
    """Measurements, page and other evidence."""

    @model_validator(mode="after")
    def _holds_together(self) -> Contents:
        digest = candidate_digest(self.base.digest, [entry.digest for entry in self.stack], self.checkpoint)
        if (self.digest, self.version) != (digest, version_of(digest)):
            raise ValueError(f"its base, stack and checkpoint have the digest {digest}, not {self.digest}")
        if bool(self.stack) != (self.verdict is not None) or bool(self.stack) != (self.parent is not None):
            raise ValueError("an edited version has a parent and a verdict, the unedited base has neither")
        return self

    @property
    def patch_digests(self) -> tuple[str, ...]:
        """Digests of the patches, in order."""
        return tuple(entry.digest for entry in self.stack)


class Candidate(Contents, Sealed):
    """A judged version before anybody decided about it; write-once, except that another policy may judge it anew."""

    format: Literal["suture-candidate-1"] = "suture-candidate-1"
    verdict: Blob
    state: Literal["passed", "refused"]
    policy: Digest
    """Digest of the policy that judged it."""
    channel: str
    """The channel it was made for."""
    supersedes: Digest | None = None
    """The blob of this candidate's former record, which another policy had judged."""
    rules: Blob | None = None
    """The policy itself, whose digest is `policy`: it says who may approve. None in records older than this field."""
    requesters: tuple[str, ...] = ()
    """Who asked for it."""

    @model_validator(mode="after")
    def _brings_its_own_policy(self) -> Candidate:
        if self.rules is not None and self.rules.sha256 != self.policy:
            raise ValueError(f"its rules are {self.rules.sha256}, not the policy {self.policy} that judged it")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without fields that are not given: a record older than they are keeps the digest that was decided about."""
        return {name: value for name, value in written(self).items()
                if name not in ("rules", "requesters", "seal") or getattr(self, name)}


class Approval(Frozen):
    """Which decision let a release out."""

    by: str
    decision: Digest
    """SHA-256 of the decision's record."""


class ReleaseManifest(Contents):
    """A published version. Immutable, and the same bytes whoever publishes it: who and when stands in the ledger."""

    format: Literal["suture-release-1"] = "suture-release-1"
    approvals: tuple[Approval, ...]

    @model_validator(mode="after")
    def _is_approved(self) -> ReleaseManifest:
        if bool(self.stack) != bool(self.approvals):
            raise ValueError("an edited release names its approval, the unedited base needs none")
        return self


class Decision(Sealed):
    """One approval or refusal of one exact candidate: its digest, and the whole record that was looked at."""

    format: Literal["suture-decision-1"] = "suture-decision-1"
    model: str
    digest: Digest
    record: Digest
    """SHA-256 of the candidate's record: its verdict, its evidence, and each of its files."""
    verdict: Digest
    decision: Literal["approve", "refuse"]
    by: str
    reason: str
    at: str

    @model_serializer(mode="wrap")
    def _as_written(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a seal that is not there: an older record keeps its digest."""
        return {name: value for name, value in written(self).items() if name != "seal" or value}


class LedgerEntry(Frozen):
    """One move of one channel."""

    kind: Literal["open", "promote", "rollback"]
    channel: str
    move: int = Field(ge=1)
    """Counts the moves of this channel, from 1."""
    by: str
    reason: str
    at: str
    from_version: Version | None
    to_version: Version
    manifest: Digest
    """SHA-256 of the manifest of `to_version`."""
    verdict: Digest | None
    decision: Digest | None
    previous: Digest | None
    """Digest of this channel's entry before, so that a changed or missing entry shows."""

    @property
    def digest(self) -> str:
        """SHA-256 of the entry's canonical JSON."""
        return digest_bytes(serialise(self))


class Pointer(Frozen):
    """Where a channel stands, and the ledger entry that its last move implies."""

    format: Literal["suture-pointer-1"] = "suture-pointer-1"
    model: str
    channel: str
    version: Version
    manifest: Digest
    entry: LedgerEntry

    @model_validator(mode="after")
    def _agrees_with_its_entry(self) -> Pointer:
        if (self.channel, self.version, self.manifest) != (self.entry.channel, self.entry.to_version, self.entry.manifest):
            raise ValueError("it points elsewhere than its own ledger entry says")
        return self


@dataclass(frozen=True)
class Cause:
    """Who does something, and why; both go into the ledger."""

    by: str
    reason: str

    def __post_init__(self) -> None:
        for name in ("by", "reason"):
            if not getattr(self, name).strip():
                raise ConfigError(f"--{name} is empty: the ledger keeps who did it and why", f'--{name} "..."')


Record = TypeVar("Record", bound=Frozen)


def parse(kind: type[Record], body: bytes, where: str) -> Record:
    """Read a record back.

    Raises:
        IntegrityError: the bytes are not such a record, or contradict themselves.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        problem = f"{place}: {first['msg']}" if place else first["msg"]
        raise IntegrityError(f"{where} is not a sound {kind.__name__}: {problem}",
                             "restore the object from a backup, or publish again") from error


def now() -> str:
    """This moment, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def candidate_key(model: str, version: str) -> str:
    """Where a candidate's record lies, below the store's prefix."""
    return f"models/{plain(model)}/candidates/{plain(version)}.json"


def release_key(model: str, version: str) -> str:
    """Where a release's manifest lies."""
    return f"models/{plain(model)}/releases/{plain(version)}.json"


def channel_key(model: str, channel: str) -> str:
    """Where a channel's pointer lies."""
    return f"models/{plain(model)}/channels/{plain(channel)}.json"


def ledger_prefix(model: str) -> str:
    """The folder of a model's ledger."""
    return f"models/{plain(model)}/ledger/"


def ledger_key(model: str, sequence: int) -> str:
    """Where a ledger entry lies; padded, so that listing gives the order."""
    return f"{ledger_prefix(model)}{sequence:08d}.json"


def plain(name: str) -> str:
    """The name itself, where it may be part of a key.

    Raises:
        ConfigError: it is no plain name.
    """
    if not NAME.fullmatch(name) or ".." in name:
        raise ConfigError(f"{name!r} cannot name a model, version or channel: letters, digits, dot, dash, underscore only",
                          "give a plain name, for example: demo")
    return name
