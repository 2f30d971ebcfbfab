"""One form for the records of every data set: an edit, the prompts that judge it, and the shares that come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from editors.contract import EditBatch, UpdateRequest
from editors.loading import LoadedModel


@dataclass(frozen=True)
class Case:
    """One edit and what judges it. The editor sees `prompt`, `subject` and `new` alone."""

    id: str
    prompt: str
    """With `{}` in the subject's place."""
    subject: str
    new: str
    true: str
    """What `new` is compared with: the answer of before."""
    paraphrases: tuple[str, ...]
    neighbours: tuple[tuple[str, str], ...]
    """Prompts near the edit, each with its right answer."""

    @property
    def question(self) -> str:
        """The filled prompt."""
        return self.prompt.replace("{}", self.subject, 1)


@dataclass(frozen=True)
class Scores:
    """One case's shares in [0, 1]; what `neighbourhood` asks is the data set's own."""

    success: float
    paraphrase: float
    neighbourhood: float
    first_choice: float
    paraphrase_first_choice: float
    teacher_forced: float
    paraphrase_teacher_forced: float


@dataclass(frozen=True)
class Dataset:
    """Cases and how they are scored under a model as it is now. Made on the unedited model."""

    name: str
    cases: tuple[Case, ...]
    score: Callable[[LoadedModel, Sequence[Case]], list[Scores]]


def edit_batch(cases: Sequence[Case], model: LoadedModel, base_digest: str | None = None) -> EditBatch:
    """The cases' edits as one batch on the model; `base_digest` where the model carries earlier edits."""
    requests = tuple(UpdateRequest(id=case.id, prompt=case.prompt, subject=case.subject, target=case.new) for case in cases)
    return EditBatch(purpose="update", base_digest=base_digest or model.digest, parent_digest=model.digest, requests=requests)
