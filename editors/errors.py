"""The typed errors of the whole house. A stack trace is for bugs; everything a user can cause is one of these.

Each message says what is wrong, where, and the value seen; `hint` is the next thing to type or to change.
"""

from __future__ import annotations


class SutureError(Exception):
    """An error a user can act on.

    Args:
        message: What is wrong, where, and the value seen.
        hint: The next thing to type or to change; empty when there is none.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  next: {self.hint}" if self.hint else self.message


class ConfigError(SutureError):
    """A setting or a method option is outside its range, or unknown."""


class SheetError(SutureError):
    """An edit sheet cannot be read; carries every problem found, not only the first."""


class BaseNotFound(SutureError):
    """The base model reference leads nowhere."""


class ArchitectureError(SutureError):
    """The model's architecture is unknown, or its tensors do not have the shapes its family promises."""


class IntegrityError(SutureError):
    """Bytes do not have the digest they are addressed by, or numbers are not finite."""


class Diverged(IntegrityError):
    """An edit came out with numbers that are not finite, or could not be solved: its settings do not suit this model."""


class Withheld(SutureError):
    """Something failed that is no typed error, where private texts are at work; its own words are not told."""


class EstimateRefused(SutureError):
    """The work does not fit into the memory at hand."""


class GateRefused(SutureError):
    """The gate said no. The version is kept in the state `refused`."""

    exit_code = 3


class ApprovalMissing(SutureError):
    """A version is not approved, was refused, or changed after its approval."""

    exit_code = 4


class PromotionConflict(SutureError):
    """Somebody else moved the channel first; the message says who."""

    exit_code = 5


class StoreError(SutureError):
    """The object store cannot be reached, forbids, or failed."""


class NotFound(StoreError):
    """No such object in the store."""


class ServiceError(SutureError):
    """An embedded service (S3, Prefect) did not start."""
