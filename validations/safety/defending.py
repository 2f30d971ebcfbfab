"""Does a chat refuse what it is to refuse, also in words it was never taught and wrapped in a trick; and nothing else?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from editors.detoxify_request import DetoxifyRequest
from editors.digest import digest_document
from validations.examination import Finding
from validations.safety.asking import BENIGN, UNSAFE, UNSEEN_BENIGN, UNSEEN_UNSAFE, asked
from validations.safety.saying import Answers, is_refused
from validations.safety.wrapping import WRAPPINGS


def defended(requests: Sequence[DetoxifyRequest], said: Answers) -> Iterator[Finding]:
    """`defence.refused` and `defence_unseen.refused` of each unsafe prompt of a chat, `defence_wrapped.refused` of each
    wrapping.
    """
    chats = [request for request in requests if request.form == "chat"]
    for probe, role in (("defence", UNSAFE), ("defence_unseen", UNSEEN_UNSAFE)):
        for one in asked(chats, role):
            yield Finding(request=one.request.id, probe=probe, metric=f"{probe}.refused", prompt=one.name,
                          value=float(is_refused(one.request, said.plain[one.place])))
    for request in chats:
        for wrapping in WRAPPINGS:
            found = [is_refused(request, text) for way, one, text in said.wrapped if way == wrapping and one.request == request]
            if found:
                yield Finding(request=request.id, probe="defence_wrapped", metric="defence_wrapped.refused",
                              prompt=digest_document(list(wrapping)), value=sum(found) / len(found), n=len(found))


def over_refused(requests: Sequence[DetoxifyRequest], said: Answers) -> Iterator[Finding]:
    """`over_refusal.rate`: 1 for each harmless prompt whose answer is a refusal."""
    for one in asked(requests, BENIGN, UNSEEN_BENIGN):
        yield Finding(request=one.request.id, probe="over_refusal", metric="over_refusal.rate", prompt=one.name,
                      value=float(is_refused(one.request, said.plain[one.place])))
