"""The values that travel through the house: requests, batches, locations, and what an editor promises.

Everything here is immutable and free of torch, so that it loads at once and can be stored as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import Field, model_validator

from editors.debias_request import DebiasRequest
from editors.detoxify_request import DetoxifyRequest
from editors.digest import digest_document
from editors.forget_request import ForgetRequest, SealedForget
from editors.frozen import Frozen

if TYPE_CHECKING:
    from editors.loading import LoadedModel
    from editors.patch import Patch
    from editors.prospect import Prospect

SheetPurpose = Literal["update", "forget", "detoxify", "debias"]
"""What a sheet may ask for."""
Purpose = Literal["update", "forget", "detoxify", "debias", "removal"]
"""What a batch is for. A removal asks for nothing new: its requests are those that must go on holding."""
Progress = Callable[[str, int, int], None]
"""Called as `progress(what, done, total)`; `total` 0 means unknown."""


def silent(what: str, done: int, total: int) -> None:
    """The progress callback of callers that show none."""


class Message(Frozen):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


class Neighbour(Frozen):
    """A prompt near the edit whose answer must stay.

    `answer` None means that the parent's own answer is the expectation. In a chat request, `prompt` is a user turn.
    """

    prompt: str
    answer: str | None = None


class Implication(Frozen):
    """What follows from the edit (multi-hop, inverse, alias): measured as portability."""

    prompt: str
    answer: str


class UpdateRequest(Frozen):
    """Teach one answer. Either `prompt`, `subject`, `target`, or the chat form `messages`, `answer`."""

    purpose: Literal["update"] = "update"
    id: str
    requester: str = ""
    reason: str = ""
    tags: tuple[str, ...] = ()
    prompt: str | None = None
    """Prompt with `{}` in the subject's place."""
    subject: str | None = None
    """In the chat form optional: words of the last user turn that carry the question's subject."""
    target: str | None = None
    messages: tuple[Message, ...] | None = None
    answer: str | None = None
    was: str | None = None
    """The answer of today; measured against it. None: the parent's own first choice."""
    accept: tuple[str, ...] = ()
    """Words that a free answer must all hold to count as right; empty: the whole target."""
    paraphrases: tuple[str, ...] = ()
    """Other wordings, never shown to the editor. In the chat form each is a user turn."""
    neighbours: tuple[Neighbour, ...] = ()
    implications: tuple[Implication, ...] = ()

    @model_validator(mode="after")
    def _one_form(self) -> UpdateRequest:
        plain, chat = (self.prompt, self.target), (self.messages, self.answer)
        if any(part is not None for part in plain) and any(part is not None for part in chat):
            raise ValueError("has both forms: give `prompt`, `subject`, `target` or `messages`, `answer`, not both")
        if all(part is not None for part in plain) and self.subject is not None:
            return self
        if all(part is not None for part in chat):
            return self
        raise ValueError("is incomplete: give `prompt`, `subject` and `target`, or `messages` and `answer`")

    @property
    def is_chat(self) -> bool:
        """Whether the request is in the chat form."""
        return self.messages is not None

    @property
    def target_text(self) -> str:
        """The answer to be learnt, without surrounding blanks."""
        return ((self.answer if self.is_chat else self.target) or "").strip()

    @property
    def question(self) -> str:
        """The filled prompt, or the last user turn."""
        if self.messages is not None:
            return self.messages[-1].content if self.messages else ""
        prompt, subject = self.prompt or "", self.subject or ""
        return prompt.replace("{}", subject, 1)

    @property
    def slot(self) -> str:
        """What the request is about, the same for two requests that would overwrite each other."""
        turns = [turn.model_dump() for turn in self.messages] if self.messages else []
        return digest_document({"question": " ".join(self.question.casefold().split()), "before": turns[:-1]})

    def at_rest(self) -> UpdateRequest:
        """The form that may be written down: itself, an update is no personal data by nature."""
        return self


EditRequest = UpdateRequest | ForgetRequest | SealedForget | DetoxifyRequest | DebiasRequest
"""What can be asked; a new purpose adds its class here. Read back from where it was kept, a forget request is sealed."""


def updates_of(requests: Sequence[EditRequest]) -> tuple[UpdateRequest, ...]:
    """Those of the requests that teach an answer."""
    return tuple(request for request in requests if isinstance(request, UpdateRequest))


class EditBatch(Frozen):
    """One purpose, one parent, N >= 1 requests. Its digest names everything downstream."""

    purpose: Purpose
    base_digest: str
    parent_digest: str
    requests: tuple[EditRequest, ...] = Field(min_length=1)

    @property
    def updates(self) -> tuple[UpdateRequest, ...]:
        """Those of the requests that teach an answer."""
        return updates_of(self.requests)

    @property
    def forgets(self) -> tuple[ForgetRequest, ...]:
        """Those of the requests that withdraw a secret, with their text; sealed ones have none."""
        return tuple(request for request in self.requests if isinstance(request, ForgetRequest))

    @property
    def detoxifies(self) -> tuple[DetoxifyRequest, ...]:
        """Those of the requests that stop the model from helping with something."""
        return tuple(request for request in self.requests if isinstance(request, DetoxifyRequest))

    @property
    def debiases(self) -> tuple[DebiasRequest, ...]:
        """Those of the requests that part terms from a group."""
        return tuple(request for request in self.requests if isinstance(request, DebiasRequest))

    @property
    def digest(self) -> str:
        """SHA-256 of the batch as it may be written down."""
        return digest_document(self.model_dump(mode="json"))


class Evidence(Frozen):
    """A file that shows why: a table (CSV) or a picture (PNG), named relative to the stage's folder."""

    kind: Literal["table", "picture"]
    path: str
    title: str


class NeuronSet(Frozen):
    """Neurons of one layer's FFN with their scores, best first."""

    layer: int
    indices: tuple[int, ...]
    scores: tuple[float, ...]


class Location(Frozen):
    """Where to edit: layers, token positions, neurons, and the evidence.

    `positions` gives, for each request id, the token index in the rendered bare prompt (0-based) whose FFN key is
    edited. `source` says who chose the layers: the calibration table, the sheet, or a locator.
    """

    layers: tuple[int, ...] = Field(min_length=1)
    positions: Mapping[str, int]
    neurons: tuple[NeuronSet, ...] = ()
    source: Literal["calibration", "sheet", "locator"]
    traced_peak: int | None = None
    """Layer of the largest indirect effect, where tracing ran; reported, never obeyed (Hase et al. 2023). Of a batch that
    detoxifies: of the greatest contrast, which DINM's own rule takes."""
    evidence: tuple[Evidence, ...] = ()


class Estimate(Frozen):
    """What an edit will cost, told before a weight is loaded."""

    memory_bytes: int
    flops: int
    seconds: float
    """At the arithmetic rate measured on this machine when the estimate was made."""


class Editor(Protocol):
    """One method. Constructed with its frozen config; `plan` leaves the model bit-identical."""

    name: ClassVar[str]
    purposes: ClassVar[tuple[str, ...]]

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Editor:
        """The editor for a sheet's options; raises ConfigError for an unknown one or one outside its range."""

    def estimate(self, ahead: Prospect) -> Estimate:
        """Bytes and FLOPs from sizes and encoded requests, before any weight is loaded."""

    def plan(self, model: LoadedModel, batch: EditBatch, location: Location, statistics: Path,
             progress: Progress = silent, earlier: Sequence[Patch] = ()) -> Patch:
        """The patch that carries out the batch; the model is unchanged.

        `statistics` is the second-moment store; `earlier` are the patches that the model carries, in stack order, whose
        effect is to stay.
        """
