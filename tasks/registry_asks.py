"""Decisions that people ask for by tags on a model version in MLflow.

Whoever reaches MLflow can set any tag and MLflow does not say who did: the name is a claim, as `--by` is. So a tag decides
nothing. It asks, the policy says whether this name may, and the record in the store is what counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tasks.register import _registry
from tasks.run_record import DIGEST
from tasks.tracking import exists

ASKS: tuple[tuple[str, Literal["approve", "refuse"]], ...] = (("suture.approve", "approve"), ("suture.refuse", "refuse"))
"""Tag with a person's name -> what that person says."""
COMMENT = "suture.comment"
ANSWER = "suture.answer"


@dataclass(frozen=True)
class Ask:
    """One tag that nobody has answered yet."""

    name: str
    number: int
    digest: str
    """Of the candidate."""
    decision: Literal["approve", "refuse"]
    by: str
    comment: str

    @property
    def tag(self) -> str:
        """The tag that says it."""
        return f"suture.{self.decision}"


def asked(tracking_uri: str) -> tuple[Ask, ...]:
    """What the tags ask for, refusals last: who approved may still be overruled.

    Raises:
        ServiceError: the tracking server cannot be reached, or failed.
    """
    if not exists(tracking_uri):
        return ()
    with _registry(tracking_uri) as client:
        return tuple(Ask(version.name, int(version.version), version.tags[DIGEST], decision, version.tags[tag].strip(),
                         version.tags.get(COMMENT, "").strip())
                     for tag, decision in ASKS for version in client.search_model_versions(f"tags.`{tag}` LIKE '%'")
                     if DIGEST in version.tags and version.tags[tag].strip())


def answer(tracking_uri: str, ask: Ask, words: str) -> None:
    """Put the answer beside the tag and take the tag away, so that the next person can set it. Raises as `asked` does."""
    with _registry(tracking_uri) as client:
        number = str(ask.number)
        client.set_model_version_tag(ask.name, number, ANSWER, words[:5000])
        for tag in (ask.tag, COMMENT):
            if tag in client.get_model_version(ask.name, number).tags:
                client.delete_model_version_tag(ask.name, number, tag)
