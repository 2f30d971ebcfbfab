"""Where decisions lie: each person's under a key of its own, so that each is written once."""

from __future__ import annotations

from editors.digest import digest_bytes
from tasks.manifest import plain


def decisions_prefix(model: str, digest: str) -> str:
    """What the keys of all decisions about a candidate begin with."""
    return f"models/{plain(model)}/decisions/{plain(digest)}"


def decision_key(model: str, digest: str, name: str, number: int = 1) -> str:
    """Where one person's decision about a candidate lies; `number` counts those whose former one ran out."""
    return f"{decisions_prefix(model, digest)}/{digest_bytes(name.encode())[:16]}-{number:04d}.json"


def single_decision_key(model: str, digest: str) -> str:
    """Where the decision about a candidate lay when there was one for each."""
    return f"{decisions_prefix(model, digest)}.json"
