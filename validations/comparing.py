"""The second half of measuring: two observations and an inspection of the files in, rows and transcripts out. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import get_args

from editors.contract import EditBatch, UpdateRequest
from editors.errors import IntegrityError
from editors.prompts import Role
from validations import probes
from validations.contract import Measurement, Measurements, Transcript
from validations.inspection import Inspection
from validations.observation import Observation, Pairs, Reply, Scope

TRANSCRIBED = ("efficacy", "paraphrase", "neighbourhood", "portability")


def compare(parent: Observation, candidate: Observation, batch: EditBatch, scope: Scope,
            inspection: Inspection | None = None, examined: Sequence[Measurement] = (),
            said: Sequence[Transcript] = ()) -> Measurements:
    """Rows and transcripts of a candidate against its parent. Without an inspection there are no integrity rows;
    `examined` and `said` are rows and transcripts of what only a purpose of its own asks.

    Raises:
        IntegrityError: the observations are not of the batch's parent and of a candidate measured against it, or both
            are of one model. An edit that changed nothing is let through only when the inspected files say so as well:
            then the row `integrity.something_changed` is 0.
    """
    _check_digests(parent, candidate, batch)
    _check_files(parent, candidate, inspection)
    theirs = {reply.key: reply for reply in candidate.replies}
    if [reply.key for reply in parent.replies] != list(theirs) or parent.questions_digest != candidate.questions_digest:
        raise IntegrityError("parent and candidate did not answer the same questions", "observe both for this batch")
    pairs = [(reply, theirs[reply.key]) for reply in parent.replies]
    rows = [] if inspection is None else [*inspection.rows, _finite_logits(candidate.replies)]
    for name in probes.names():
        rows += probes.get(name).rows(scope, [pair for pair in pairs if pair[0].probe == name])
    return Measurements(parent_digest=parent.model_digest, candidate_digest=candidate.model_digest,
                        batch_digest=batch.digest, rows=(*rows, *examined), transcripts=(*_transcripts(scope, pairs), *said))


def _check_digests(parent: Observation, candidate: Observation, batch: EditBatch) -> None:
    for what, found, expected in (
        ("the baseline", parent.model_digest, batch.parent_digest),
        ("the candidate's reference", candidate.reference_digest, parent.model_digest),
        ("the baseline's reference", parent.reference_digest, None),
    ):
        if found != expected:
            raise IntegrityError(f"{what} is {_short(found)}, expected {_short(expected)}", "observe both for this batch")


def _check_files(parent: Observation, candidate: Observation, inspection: Inspection | None) -> None:
    if inspection is None:
        if parent.model_digest == candidate.model_digest:
            raise IntegrityError(f"the candidate is the parent: both have the digest {_short(parent.model_digest)}",
                                 "observe the candidate as re-read from disk")
        return
    for what, seen, read in (("parent", parent.model_digest, inspection.parent_digest),
                             ("candidate", candidate.model_digest, inspection.candidate_digest)):
        if seen != read:
            raise IntegrityError(f"the {what} that was asked is {_short(seen)}, its files are {_short(read)}",
                                 f"observe the {what} as re-read from disk")


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]


def _finite_logits(replies: Iterable[Reply]) -> Measurement:
    finite = [reply.finite for reply in replies]
    return Measurement(request="-", probe="integrity", metric="integrity.finite", prompt="logits", parent=None,
                       candidate=float(all(finite)), n=len(finite))


def _transcripts(scope: Scope, pairs: Pairs) -> Iterator[Transcript]:
    requests = {request.id: request for request in scope.requests}
    for parent, candidate in pairs:
        if parent.probe in TRANSCRIBED:
            role = next(role for role in get_args(Role) if role == parent.role)
            prompt, expected = _asked(requests[parent.request], role, parent.index)
            yield Transcript(request=parent.request, role=role, prompt=prompt, expected=expected,
                             parent=parent.text.strip(), candidate=candidate.text.strip())


def _asked(request: UpdateRequest, role: Role, index: int) -> tuple[str, str | None]:
    """The prompt as the sheet words it, and the expected answer."""
    if role == "neighbour":
        return request.neighbours[index].prompt, request.neighbours[index].answer
    if role == "implication":
        return request.implications[index].prompt, request.implications[index].answer
    return request.question if role == "edit" else request.paraphrases[index], request.target_text
