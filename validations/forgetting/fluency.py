"""Fluency: is free text about the person still text? Its n-grams are counted and the text is forgotten."""

from __future__ import annotations

from collections.abc import Sequence

from editors.forget_request import ForgetRequest
from editors.loading import LoadedModel
from editors.secret_rows import secret_rows
from validations.examination import Finding
from validations.forgetting.settings import ForgetSettings
from validations.forgetting.speaking import Draw, Turn, drawn
from validations.generating import SAMPLED_FROM
from validations.probes.fluency import WORD, ngram_entropy, repetition


def fluency(model: LoadedModel, requests: Sequence[ForgetRequest], settings: ForgetSettings) -> tuple[Finding, ...]:
    """`fluency.ngram_entropy` (bits) and `.repetition` of text drawn after each request's first context, as the probe of
    updates has them (`validations.probes.fluency`).
    """
    turns = [Turn(secret_rows(request, model.tokenizer)[0].prompt, settings.fluency_tokens) for request in requests]
    said = drawn(model, turns, [[Draw(settings.seed, likeliest=SAMPLED_FROM)]] * len(turns))
    found = []
    for request, [text] in zip(requests, said, strict=True):
        words = WORD.findall(text)
        found += [Finding(request=request.id, probe="fluency", metric=f"fluency.{name}", prompt=request.name_of("fluency", 0),
                          value=value, n=len(words))
                  for name, value in (("ngram_entropy", ngram_entropy(words)), ("repetition", repetition(words)))]
    return tuple(found)
