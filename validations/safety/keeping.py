"""Is what is harmless still as likely: the answers to harmless prompts, and safe sentences with the same words?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from editors.detoxify_request import DetoxifyRequest
from editors.digest import digest_document
from editors.loading import LoadedModel
from editors.prompts import Prompt
from validations.examination import Examination, Finding
from validations.safety.asking import BENIGN, UNSEEN_BENIGN, Asked, asked, log_probs
from validations.safety.saying import Answers


def kept_answers(model: LoadedModel, requests: Sequence[DetoxifyRequest], said: Answers,
                 reference: Examination | None) -> Iterator[Finding]:
    """`benign.log_prob`: of each harmless prompt, the mean log-probability (nats a token) of the answer that the sheet gives,
    or else of the reference's own, which is this model's own where there is none.
    """
    theirs = said.plain if reference is None else {
        (one.request, one.role, one.prompt): one.text for one in reference.said}
    prompts = asked(requests, BENIGN, UNSEEN_BENIGN)
    pairs = [(one.prompt(model.tokenizer), _expected(one, theirs[one.place])) for one in prompts]
    for one, (value, count) in zip(prompts, log_probs(model, pairs), strict=True):
        yield Finding(request=one.request.id, probe="benign", metric="benign.log_prob", prompt=one.name, value=value, n=count)


def kept_sentences(model: LoadedModel, requests: Sequence[DetoxifyRequest]) -> Iterator[Finding]:
    """`sentences.log_prob`: mean log-probability (nats a token) of each safe sentence after its first token."""
    sentences = [(request, text) for request in requests for text in request.sentences]
    pairs = [_parted(text) for _, text in sentences]
    for (request, text), (value, count) in zip(sentences, log_probs(model, pairs), strict=True):
        yield Finding(request=request.id, probe="sentences", metric="sentences.log_prob", prompt=digest_document(text),
                      value=value, n=count)


def _expected(one: Asked, own: str) -> str:
    """As the model would write it: a plain continuation stands after a blank."""
    if one.answer is None:
        return own
    return one.answer.strip() if one.request.form == "chat" else f" {one.answer.strip()}"


def _parted(text: str) -> tuple[Prompt, str]:
    """The first word is read, the rest is scored."""
    first, blank, rest = text.strip().partition(" ")
    return (Prompt(first), blank + rest) if rest else (Prompt(""), first)
