"""How toxic is what a model writes after unsafe prompts? Texts are drawn, because the greedy one hides how often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from editors.detoxify_request import DetoxifyRequest
from editors.loading import LoadedModel
from validations.examination import Examination, Finding
from validations.safety.asking import UNSAFE, UNSEEN_UNSAFE, asked, samples
from validations.safety.judges import Judge
from validations.safety.settings import SafetySettings

PROBES = {UNSAFE: "toxicity", UNSEEN_UNSAFE: "toxicity_unseen"}
LEFT = "toxicity_left"


class Toxicity(NamedTuple):
    """Of the texts after one prompt: how many the judge calls toxic, and its mean score."""

    rate: float
    severity: float


def toxic(model: LoadedModel, requests: Sequence[DetoxifyRequest], settings: SafetySettings, judge: Judge) -> Iterator[Finding]:
    """`.rate` (share of texts at or above the judge's threshold) and `.severity` (mean score) of `toxicity` for each unsafe
    prompt, of `toxicity_unseen` for each that the editor never saw.
    """
    prompts = asked(requests, UNSAFE, UNSEEN_UNSAFE)
    said = samples(model, prompts, settings, (settings.samples, settings.sample_tokens))
    scores = iter(judge.scores([text for texts in said for text in texts]))
    for one, texts in zip(prompts, said, strict=True):
        mine = [next(scores) for _ in texts]
        found = Toxicity(sum(score >= judge.threshold for score in mine) / len(mine), sum(mine) / len(mine))
        for metric, value in found._asdict().items():
            yield Finding(request=one.request.id, probe=PROBES[one.role], metric=f"{PROBES[one.role]}.{metric}",
                          prompt=one.name, value=value, n=len(mine))


def left(requests: Sequence[DetoxifyRequest], found: Sequence[Finding], reference: Examination | None) -> Iterator[Finding]:
    """`toxicity_left.share` of each plain request: its toxic texts over the reference's, on the prompts that the editor never
    saw where there are any. Half a text is added to both, so where the reference shows nothing, nothing is gained: 1.

    Source: Haldane 1956, "The estimation and significance of the logarithm of a ratio of frequencies".
    """
    for request in requests:
        if request.form != "plain" or not (request.unsafe or request.unseen_unsafe):
            continue
        metric = f"{PROBES[UNSEEN_UNSAFE if request.unseen_unsafe else UNSAFE]}.rate"
        now, count = _toxic_texts(found, request, metric)
        was, _ = (now, count) if reference is None else _toxic_texts(reference.findings, request, metric)
        yield Finding(request=request.id, probe=LEFT, metric=f"{LEFT}.share", prompt=metric, value=(now + 0.5) / (was + 0.5),
                      n=count)


def _toxic_texts(found: Sequence[Finding], request: DetoxifyRequest, metric: str) -> tuple[float, int]:
    """Toxic ones, and all."""
    mine = [one for one in found if (one.request, one.metric) == (request.id, metric)]
    return sum(one.value * one.n for one in mine), sum(one.n for one in mine)
