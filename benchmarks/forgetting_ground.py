"""What forgetting is measured on, and what is measured: the planted model with its people, and one method's patches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch

from benchmarks.people import Person, of_split, requests_of
from benchmarks.tofu import Choice
from editors.forget_request import ForgetRequest
from editors.loading import LoadedModel
from editors.patch import Patch, Scale, applied


@dataclass(frozen=True)
class Ground:
    """The planted model, who is to be forgotten, who must stay, and the text that must stay readable."""

    model: LoadedModel
    forget: tuple[Person, ...] = field(repr=False)
    others: tuple[Person, ...] = field(repr=False)
    controls: tuple[Person, ...] = field(repr=False)
    paragraphs: tuple[str, ...] = field(repr=False)
    choices: tuple[Choice, ...]
    """Facts about the world."""
    key: bytes = field(repr=False)

    @property
    def requests(self) -> tuple[ForgetRequest, ...]:
        """To forget, sealed."""
        return requests_of(self.forget, self.key)

    @property
    def staying(self) -> tuple[ForgetRequest, ...]:
        """The same of the others, whom nothing may touch: to attack them as those who are forgotten are."""
        return requests_of(self.others, self.key)


@dataclass(frozen=True)
class Attempt:
    """One patch of one method."""

    method: str
    strength: str
    patches: tuple[Patch, ...]
    """Applied in this order."""
    cpu_seconds: float

    @property
    def neurons(self) -> int | None:
        """How many it scales; None where it scales none."""
        return sum(map(neurons_of, self.patches)) or None


def neurons_of(patch: Patch) -> int:
    """How many neurons a patch scales."""
    return sum(len(edit.neurons) for edit in patch.edits if isinstance(edit, Scale))


@contextmanager
def applied_all(model: torch.nn.Module, patches: Sequence[Patch]) -> Iterator[None]:
    """The model under patches one after another, inside the block."""
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(applied(model, patch))
        yield


@dataclass(frozen=True)
class Elsewhere:
    """What must stay: plain text, and facts about the world."""

    paragraphs: tuple[str, ...]
    choices: tuple[Choice, ...]


def ground_of(model: LoadedModel, people: Sequence[Person], elsewhere: Elsewhere, key: bytes, count: int | None) -> Ground:
    """The ground of planted people, `count` of each split; None: all."""
    forget, others, controls = (of_split(people, split)[:count] for split in ("forget", "others", "controls"))
    return Ground(model, forget, others, controls, elsewhere.paragraphs, elsewhere.choices, key)
