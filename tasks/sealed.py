"""Records as bytes, and a seal for those that nothing else names by their digest."""

from __future__ import annotations

import json
from typing import Annotated, Self

from pydantic import Field, model_validator

from editors.contract import Frozen
from editors.digest import canonical_json, digest_bytes

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Sealed(Frozen):
    """A record that nothing else names by its digest, and so names it itself."""

    seal: Digest | None = None
    """Digest of everything else in the record; None in records older than this field."""

    @model_validator(mode="after")
    def _is_as_it_was_written(self) -> Self:
        if self.seal is not None and self.seal != self._digest():
            raise ValueError("it is not what was written: its seal is of other content")
        return self

    def sealed(self) -> Self:
        """The same record under its seal."""
        return self.model_copy(update={"seal": self._digest()})

    def _digest(self) -> str:
        return digest_bytes(serialise(self.model_copy(update={"seal": None})))


def serialise(record: Frozen) -> bytes:
    """The record's canonical JSON, which is what its digest covers."""
    return canonical_json(json.loads(record.model_dump_json()))
