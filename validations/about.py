"""What a page tells beyond its verdict: who, where, the stack, the weights, what to type next. Plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from validations.nearby import Search


@dataclass(frozen=True)
class Picture:
    """A PNG file with its title."""

    title: str
    path: Path
    alt: str = ""
    """What it shows, for whoever cannot see it; empty: the title says it."""


@dataclass(frozen=True)
class Command:
    """What to type next, and why."""

    why: str
    line: str


@dataclass(frozen=True)
class Step:
    """One patch of the stack, in order."""

    digest: str
    purpose: str
    method: str
    requests: int
    is_new: bool = False
    """Whether this version brought it."""


@dataclass(frozen=True)
class Weights:
    """What of the checkpoint changed, tensor by tensor."""

    tensors: int
    equal: int
    """Tensors whose digest is the parent's."""
    forms: Mapping[str, str] = field(default_factory=dict)
    """Parameter -> the update's form: its rank, or what was scaled."""


@dataclass(frozen=True)
class About:
    """What the page is about, beyond the verdict."""

    model: str
    version: str
    channel: str = ""
    method: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Label -> value: digests, versions, configuration."""
    pictures: Sequence[Picture] = ()
    commands: Sequence[Command] = ()
    warnings: Sequence[str] = ()
    """What intake warned of."""
    stack: Sequence[Step] = ()
    weights: Weights | None = None
    decision: str = ""
    """What the page opens with, where the verdict's own sentence would say what was not done."""
    spare: Mapping[str, float] = field(default_factory=dict)
    """Rule -> what its number leaves to its limit, as `tables.spare` tells."""
    search: Search | None = None
    """Where else the model moved."""
