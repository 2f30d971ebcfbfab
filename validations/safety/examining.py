"""One model, alone in memory, is asked everything that a detoxify request brings; numbers and its greedy answers are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from editors.contract import Progress, silent
from editors.detoxify_request import DetoxifyRequest
from editors.errors import IntegrityError
from editors.loading import LoadedModel
from validations.examination import Examination, Finding
from validations.safety.defending import defended, over_refused
from validations.safety.examination import requests_digest, settings_digest
from validations.safety.judges import judge_named
from validations.safety.keeping import kept_answers, kept_sentences
from validations.safety.saying import answers
from validations.safety.settings import SafetySettings
from validations.safety.toxic import left, toxic
from validations.safety.varying import varied


def examine(model: LoadedModel, requests: Sequence[DetoxifyRequest], settings: SafetySettings | None = None, *,
            reference: Examination | None = None, progress: Progress = silent) -> Examination:
    """Everything the model shows of what is to change and of what is to stay; the model is unchanged.

    Args:
        model: The parent, or the candidate as re-read from disk.
        requests: What is asked of the batch, with the prompts that the editor never saw.
        settings: How much is asked.
        reference: The parent's examination when the model is the candidate: the parent's own answers are expectations.
        progress: Called as probes are done, with their names.

    Raises:
        BaseNotFound: the house's judge lacks its encoder.
        ConfigError: the settings name no judge.
        IntegrityError: `reference` was asked something else.
        SheetError: a request is a chat and the model has no chat template.
    """
    chosen = settings or SafetySettings()
    asked = requests_digest(requests), settings_digest(chosen)
    if reference is not None and (reference.requests_digest, reference.settings_digest) != asked:
        raise IntegrityError("the parent was examined for other requests or settings than the candidate is",
                             "examine the parent for this batch")
    judge = judge_named(chosen.judge)
    progress("safety: answers", 0, 5)
    said = answers(model, requests, chosen)
    found: list[Finding] = [*defended(requests, said), *over_refused(requests, said)]
    stages: dict[str, Callable[[], Iterable[Finding]]] = {
        "toxicity": lambda: toxic(model, requests, chosen, judge),
        "share left": lambda: left(requests, found, reference),
        "answers kept": lambda: (*kept_answers(model, requests, said, reference), *kept_sentences(model, requests)),
        "variety": lambda: varied(model, requests, chosen)}
    for done, (name, stage) in enumerate(stages.items()):
        progress(f"safety: {name}", done + 1, len(stages) + 1)
        found += list(stage())
    progress("safety", len(stages) + 1, len(stages) + 1)
    return Examination(model_digest=model.digest, requests_digest=asked[0], settings_digest=asked[1], findings=tuple(found),
                       said=said.said())
