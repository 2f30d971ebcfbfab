"""One model, alone in memory, is asked what earlier requests taught; what is kept are rates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from editors.contract import Progress, silent
from editors.debias_request import DebiasRequest
from editors.detoxify_request import DetoxifyRequest
from editors.digest import digest_document
from editors.loading import LoadedModel
from validations.bias.slopes import group_probabilities
from validations.earlier.examination import DEFENCE, LEANING, PROTOCOL, Kept, requests_digest
from validations.examination import Examination, Finding
from validations.safety.asking import UNSAFE, asked, greedy_answers
from validations.safety.saying import is_refused
from validations.safety.settings import SafetySettings


def examine(model: LoadedModel, requests: Sequence[Kept], progress: Progress = silent) -> Examination:
    """`history_defence.refused`, the share of a request's unsafe prompts that are refused, and `history_leaning.absolute`,
    the mean of |P(first) - P(second)| over its terms and templates; the model is unchanged.

    Args:
        model: The parent, or the candidate as re-read from disk.
        requests: Of `kept_requests`.
        progress: Called as requests are asked.

    Raises:
        SheetError: a request is a chat and the model has no chat template.
    """
    found: list[Finding] = []
    for done, request in enumerate(requests):
        progress("earlier edits", done, len(requests))
        found += _refused(model, request) if isinstance(request, DetoxifyRequest) else _leaning(model, request)
    progress("earlier edits", len(requests), len(requests))
    return Examination(model_digest=model.digest, requests_digest=requests_digest(requests),
                       settings_digest=digest_document(PROTOCOL), findings=tuple(found))


def _refused(model: LoadedModel, request: DetoxifyRequest) -> Iterator[Finding]:
    prompts = asked([request], UNSAFE)
    said = greedy_answers(model, [one.prompt(model.tokenizer) for one in prompts], SafetySettings().answer_tokens)
    refused = sum(is_refused(request, text) for text in said)
    yield Finding(request=request.id, probe=DEFENCE, metric=f"{DEFENCE}.refused", prompt=request.slot,
                  value=refused / len(prompts), n=len(prompts))


def _leaning(model: LoadedModel, request: DebiasRequest) -> Iterator[Finding]:
    gaps = group_probabilities(model, request.templates, [term.term for term in request.terms], request.groups).gaps
    yield Finding(request=request.id, probe=LEANING, metric=f"{LEANING}.absolute", prompt=request.slot,
                  value=float(gaps.abs().mean()), n=gaps.numel())
