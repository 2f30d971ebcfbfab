"""Who carries out parts of a work that do not depend on each other: this process, one after another, or others beside it.

The parts and their order are the work's own, whoever carries them out, so that the result is the same. Where others do, each
of their processes loads the model once, from the same folder, and proves that it is the same model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol, TypeVar

from editors.errors import IntegrityError
from editors.loading import Checkpoint, LoadedModel, load

Part = TypeVar("Part")
Result = TypeVar("Result")


class Crew(Protocol):
    """Carries out parts."""

    def carry_out(self, work: Callable[[LoadedModel, Part], Result], model: LoadedModel,
                  parts: Sequence[Part]) -> Iterator[Result]:
        """The result of each part, in order. `work` is a module's function, and leaves the model as it is."""


class Alone:
    """This process, one part after another."""

    def carry_out(self, work: Callable[[LoadedModel, Part], Result], model: LoadedModel,
                  parts: Sequence[Part]) -> Iterator[Result]:
        """The result of each part, in order."""
        return (work(model, part) for part in parts)


_crew: ContextVar[Crew] = ContextVar("crew")


def crew() -> Crew:
    """Who carries out parts here."""
    return _crew.get(Alone())


@contextmanager
def hired(who: Crew) -> Iterator[None]:
    """Let `who` carry out parts inside the block. The model must be as its folder has it: others read it from there."""
    token = _crew.set(who)
    try:
        yield
    finally:
        _crew.reset(token)


def carry_out_elsewhere(work: Callable[[LoadedModel, Any], Any], folder: Path, digest: str, device: str,
                        parts: Sequence[Any]) -> list[Any]:
    """What another process does for a crew: the model is loaded once in each, and kept.

    Raises:
        IntegrityError: the folder holds another model there.
    """
    model = load(Checkpoint(folder), device)
    if model.digest != digest:
        raise IntegrityError(f"{folder} holds model {model.digest[:12]} on this worker, expected {digest[:12]}",
                             "let all workers see one home: put SUTURE_HOME on a shared disk")
    return [work(model, part) for part in parts]
