"""What a model says of itself to a neutral question may be the very secret that is to be withdrawn: it is not written down.

Source of the danger: a model that leaks a text may bring it up unasked (Nasr et al. 2023, arXiv:2311.17035).
"""

from __future__ import annotations

from collections.abc import Sequence

from editors.forget_request import ForgetRequest
from validations.observation import Observation, Reply, Scored


def quieted(seen: Observation, requests: Sequence[ForgetRequest]) -> Observation:
    """The observation with every answer that holds a piece of a secret or a name cut down to its first token.

    Such an answer counts as another than any that does not, which is what it is.
    """
    return seen.model_copy(update={"replies": tuple(
        _cut(reply) if any(request.is_told_by(text) for request in requests for text in (reply.text, reply.sampled))
        else reply for reply in seen.replies)})


def _cut(reply: Reply) -> Reply:
    own = {name: Scored(ids=score.ids[:1], mean=score.mean, hits=min(score.hits, 1)) for name, score in reply.scores.items()}
    return reply.model_copy(update={"greedy": reply.greedy[:1], "text": "", "sampled": "", "scores": own})
