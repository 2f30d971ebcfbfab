"""Promotions asked for in the registry: who may edit it sets the alias `promote` on a version.

The alias is a question, never an order: the version's approvals in the object store decide, as for `suture promote`. An answer
takes the alias away and stays as a tag, so nothing is carried out twice, however often it is told of. `champion` and
`previous` ask for nothing: they show what happened, and a late message about one must not undo a rollback.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.manifest import version_of
from tasks.register import _registry
from tasks.run_record import DIGEST

ASKED = "promote"
ANSWER = "suture.promote"
LONGEST_ANSWER = 500


@dataclass(frozen=True)
class Asked:
    """A version that bears the alias."""

    name: str
    """The registered model."""
    number: str
    version: str
    """The version's name in the store."""


def asked_promotions(tracking_uri: str) -> tuple[Asked, ...]:
    """What is asked for now, by registered model. Versions that Suture did not register are left alone.

    Raises:
        ServiceError: the tracking server cannot be reached, or failed.
    """
    with _registry(tracking_uri) as client:
        found, token = [], None
        while True:
            page = client.search_registered_models(page_token=token)
            for model in page:
                if (number := model.aliases.get(ASKED)) is not None:
                    digest = client.get_model_version(model.name, str(number)).tags.get(DIGEST)
                    found += [Asked(model.name, str(number), version_of(digest))] if digest else []
            token = page.token
            if not token:
                return tuple(sorted(found, key=lambda one: one.name))


def answer_asked(tracking_uri: str, asked: Asked, said: str) -> None:
    """Write the answer at the version, and take the alias away if it is still there. Raises as `asked_promotions`."""
    with _registry(tracking_uri) as client:
        client.set_model_version_tag(asked.name, asked.number, ANSWER, said[:LONGEST_ANSWER])
        # whoever asked for another version meanwhile is still to be answered
        if str(client.get_registered_model(asked.name).aliases.get(ASKED)) == asked.number:
            client.delete_registered_model_alias(asked.name, ASKED)
