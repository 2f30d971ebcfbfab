"""What one model showed where a purpose asks more than every edit is asked: numbers under its digest, stored as JSON.

Each purpose has its own attacks or probes; what they return has one shape, so that it is compared, judged and kept alike.
No torch.
"""

from __future__ import annotations

import json

from editors.digest import digest_document
from editors.errors import IntegrityError
from editors.frozen import Frozen
from validations.contract import AskedAs, Measurement, Recorded, Transcript


class Finding(Recorded):
    """One number that one model shows, by one named protocol. It holds no text and no token."""

    request: str
    """Request id, or `-` where it belongs to the batch."""
    probe: str
    metric: str
    """`<probe>.<protocol>`."""
    prompt: str
    """Digest of the prompt's text, or a private request's name of it."""
    value: float
    n: int = 1
    """How many elementary observations the value averages."""

    @property
    def key(self) -> tuple[str, str, str]:
        """The same for parent and candidate."""
        return self.request, self.metric, self.prompt


class Said(Frozen):
    """A prompt and what one model answered. Purposes about private texts keep none."""

    request: str
    role: AskedAs
    prompt: str
    text: str
    expected: str | None = None


class Examination(Recorded):
    """Everything one model showed."""

    model_digest: str
    requests_digest: str
    """Of the requests as they may be written down."""
    settings_digest: str
    """Of how much was tried, and of what the house ships for it."""
    findings: tuple[Finding, ...]
    said: tuple[Said, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        return digest_document(json.loads(self.model_dump_json()))


def rows_of(parent: Examination, candidate: Examination) -> tuple[Measurement, ...]:
    """A row for each of the candidate's findings. `parent` is None where the parent was measured by another protocol.

    Raises:
        IntegrityError: the two were not asked the same, or are of one model.
    """
    for what, theirs, own in (("requests", parent.requests_digest, candidate.requests_digest),
                              ("settings", parent.settings_digest, candidate.settings_digest)):
        if theirs != own:
            raise IntegrityError(f"parent and candidate were examined for other {what}: {theirs[:12]} and {own[:12]}",
                                 "examine both for this batch")
    if parent.model_digest == candidate.model_digest:
        raise IntegrityError(f"the candidate is the parent: both have the digest {parent.model_digest[:12]}",
                             "examine the candidate as re-read from disk")
    was = {finding.key: finding.value for finding in parent.findings}
    return tuple(Measurement(request=one.request, probe=one.probe, metric=one.metric, prompt=one.prompt,
                             parent=was.get(one.key), candidate=one.value, n=one.n) for one in candidate.findings)


def transcripts_of(parent: Examination, candidate: Examination) -> tuple[Transcript, ...]:
    """Answers before and after, in the order in which they were asked; those of the parent alone are left out."""
    was = {(one.request, one.role, one.prompt): one.text for one in parent.said}
    return tuple(Transcript(request=one.request, role=one.role, prompt=one.prompt, expected=one.expected,
                            parent=was.get((one.request, one.role, one.prompt), ""), candidate=one.text)
                 for one in candidate.said)
