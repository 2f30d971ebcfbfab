"""Retention: does the model still know what is public about the person?"""

from __future__ import annotations

from collections.abc import Sequence

from editors.forget_request import ForgetRequest
from editors.loading import LoadedModel
from editors.prompts import Encoded, Prompt, encode
from validations.examination import Finding
from validations.scoring import Ask, answer


def retention(model: LoadedModel, requests: Sequence[ForgetRequest]) -> tuple[Finding, ...]:
    """`retention.first_choice` (1 where every token of the answer is) and `retention.log_prob` (mean, nats a token).

    A row each for each retained fact.
    """
    asked = [(request, index, _encoded(model, fact.prompt.get_secret_value(), fact.answer.get_secret_value()))
             for request in requests for index, fact in enumerate(request.retain)]
    answers = answer(model, [Ask(one.ids[:one.prompt_length], (one.ids[one.prompt_length:],)) for _, _, one in asked])
    found = []
    for (request, index, _), said in zip(asked, answers, strict=True):
        score = said.scores[0]
        for metric, value in (("first_choice", float(all(score.hits))),
                              ("log_prob", sum(score.log_probs) / len(score.log_probs))):
            found.append(Finding(request=request.id, probe="retention", metric=f"retention.{metric}",
                                 prompt=request.name_of("retain", index), value=value, n=len(score.hits)))
    return tuple(found)


def _encoded(model: LoadedModel, prompt: str, answer_text: str) -> Encoded:
    return encode(Prompt(prompt.rstrip(), f" {answer_text.strip()}"), model.tokenizer)
