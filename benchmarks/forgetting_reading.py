"""What is left of secrets under an edit, and what the edit took besides: the figures of one row of the forgetting table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, median
from typing import Any

from benchmarks.answers import Answer, answer_scores, perplexity
from benchmarks.forgetting_ground import Attempt, Ground, applied_all
from benchmarks.people import Person, requests_of
from benchmarks.tofu import chosen_right
from editors.forget_request import ForgetRequest
from editors.loading import LoadedModel
from validations.forgetting.exposure import Exposure, exposures
from validations.forgetting.extraction import sampled, verbatim
from validations.forgetting.settings import ForgetSettings
from validations.forgetting.variants import Training, relearned, unrelated

CLEAR = 0.1
"""Nats of margin above which an answer is no toss-up: where the first two choices are nearer, any edit may turn them."""
SETTINGS = ForgetSettings()
"""The probes' own."""


@dataclass(frozen=True)
class Before:
    """The planted model's figures.

    said, others, facts: what greedy decoding gets right, a context or a public fact each; world: which facts are known.
    others_extracted: ids of the other people whose secrets are extracted, by greedy decoding and with drawn answers as well.
    """

    bits: tuple[float, ...]
    exposure_within_1_bit: float
    controls: float
    """Mean exact exposure of the secrets of people never planted, in bits."""
    said: tuple[bool, ...]
    others: tuple[bool, ...]
    others_extracted: Mapping[bool, frozenset[str]]
    facts: tuple[bool, ...]
    world: tuple[bool, ...]
    perplexity: float
    margins: tuple[float, ...]
    """Of each of `others`: by how many nats what greedy decoding must say there is ahead, where it is least."""


@dataclass(frozen=True)
class Effort:
    """What is tried besides exposure and greedy answers."""

    samples: bool = False
    """Whether 20 answers to each secret's contexts are drawn, at temperatures 0.7 and 1.0; also for those who must stay."""
    relearning: bool = False
    """Whether greedy answers are asked again after 20 steps of training on unrelated text."""


@dataclass(frozen=True)
class Figures:
    """One row. Exposures are exact, of the first context of each secret."""

    method: str
    strength: str
    neurons: int | None
    cpu_seconds: float
    bits: tuple[float, ...]
    exposure_within_1_bit: float
    """Share of secrets at most 1 bit above the mean of all never-seen values in the same text, 1.44 bits."""
    exposure_median: float
    exposure_mean: float
    extracted: int
    """Secrets that greedy decoding says in any context or paraphrase, or a sample holds where samples were drawn."""
    sampled: bool
    """Whether samples were drawn as well."""
    others_kept: float
    """Of the other people's secrets that the same attack extracted before, the share that it still does."""
    texts_kept: float
    """Of the contexts of other people that greedy decoding answered with the secret before, the share that it still does."""
    facts_kept: float
    """The same of the public facts of those who are forgotten."""
    world_kept: float
    """The same of facts about the world."""
    perplexity_ratio: float
    margins: tuple[float, ...]
    """Of every text about other people, now; negative where the secret is not said."""
    margin_lost: float
    """Median, over the texts about others that were said before, of the nats by which the margin shrank."""
    clear: int
    """How many of those had a margin above 0.1 nat."""
    clear_kept: int
    """How many of `clear` are still said."""
    returned: int | None = None
    """Secrets said again after 20 steps of relearning on unrelated text, where it was tried."""


def spoken(model: LoadedModel, people: Sequence[Person]) -> list[Answer]:
    """For each person in each context, how the model holds the secret."""
    return answer_scores(model, [(text, person.secret) for person in people for text in person.contexts])


def said(answers: Sequence[Answer]) -> tuple[bool, ...]:
    """Whether each token is the first choice: greedy decoding says the answer."""
    return tuple(answer.is_first_choice for answer in answers)


def facts(model: LoadedModel, people: Sequence[Person]) -> tuple[bool, ...]:
    """The same for each public fact."""
    return said(answer_scores(model, [fact for person in people for fact in person.retain]))


def before(ground: Ground) -> Before:
    """Figures of the model as planted."""
    model = ground.model
    exposed, others = exposed_in(model, ground.requests), spoken(model, ground.others)
    others_extracted = {samples: extracted_by(model, ground.staying, samples=samples) for samples in (False, True)}
    controls = exposed_in(model, requests_of(ground.controls, ground.key))
    return Before(tuple(one.bits for one in exposed), share_within(exposed), fmean(one.bits for one in controls),
                  said(spoken(model, ground.forget)), said(others), others_extracted, facts(model, ground.forget),
                  chosen_right(model, ground.choices), perplexity(model, ground.paragraphs),
                  tuple(answer.margin for answer in others))


def exposed_in(model: LoadedModel, requests: Sequence[ForgetRequest]) -> tuple[Exposure, ...]:
    """Exact exposure of each secret in the first context: 10^4 values ranked by log P of the whole, beginnings shared."""
    return exposures(model, requests, SETTINGS, texts=1)


def figures(ground: Ground, known: Before, attempt: Attempt, effort: Effort) -> Figures:
    """The row of an attempt; the model is unchanged."""
    model, requests = ground.model, ground.requests
    with applied_all(model.model, attempt.patches):
        exposed = exposed_in(model, requests)
        bits = [one.bits for one in exposed]
        extracted, staying = (extracted_by(model, asked, samples=effort.samples) for asked in (requests, ground.staying))
        others = spoken(model, ground.others)
        margins = tuple(answer.margin for answer in others)
        row = Figures(
            attempt.method, attempt.strength, attempt.neurons, attempt.cpu_seconds, tuple(bits),
            share_within(exposed), median(bits), fmean(bits), len(extracted), effort.samples,
            share_kept(known.others_extracted[effort.samples], staying), kept(known.others, said(others)),
            kept(known.facts, facts(model, ground.forget)), kept(known.world, chosen_right(model, ground.choices)),
            perplexity(model, ground.paragraphs) / known.perplexity, margins, margin_lost(known, margins),
            *clear_kept(known, said(others)))
        return replace(row, returned=_returned(model, requests)) if effort.relearning else row


def _returned(model: LoadedModel, requests: Sequence[ForgetRequest]) -> int:
    """Secrets said after a little training on text that names nobody."""
    training = Training(SETTINGS.relearning_steps, SETTINGS.relearning_rate, SETTINGS.relearning_tokens, SETTINGS.seed)
    with relearned(model, unrelated(model), training):
        return len(extracted_by(model, requests, samples=False))


def extracted_by(model: LoadedModel, requests: Sequence[ForgetRequest], *, samples: bool) -> frozenset[str]:
    """Ids of the requests whose secret is said: in the greedy answer to a context or a paraphrase, or in a drawn one."""
    findings = [*verbatim(model, requests, SETTINGS), *verbatim(model, requests, SETTINGS, role="paraphrase"),
                *(sampled(model, requests, SETTINGS) if samples else ())]
    return frozenset(finding.request for finding in findings if finding.value > 0)


def share_within(exposed: Sequence[Exposure], limit: float = 1.0) -> float:
    """Share of exposures at most `limit` bits above the mean of all never-seen values in the same text."""
    return sum(one.over_controls <= limit for one in exposed) / len(exposed)


def share_kept(was: frozenset[str], now: frozenset[str]) -> float:
    """Of what was found before, the share that still is; 1 where nothing was."""
    return len(was & now) / len(was) if was else 1.0


def kept(was: Sequence[bool], now: Sequence[bool]) -> float:
    """Of what was right before, the share that still is; 1 where nothing was."""
    still = [after for first, after in zip(was, now, strict=True) if first]
    return sum(still) / len(still) if still else 1.0


def margin_lost(known: Before, margins: Sequence[float]) -> float:
    """Median loss of margin, in nats, over the texts about others that were said before; 0 where none was."""
    lost = [was - now for is_said, was, now in zip(known.others, known.margins, margins, strict=True) if is_said]
    return median(lost) if lost else 0.0


def clear_kept(known: Before, now: Sequence[bool]) -> tuple[int, int]:
    """How many texts about others were said with a margin above `CLEAR`, and how many of those still are."""
    still = [after for first, margin, after in zip(known.others, known.margins, now, strict=True) if first and margin > CLEAR]
    return len(still), sum(still)


def as_row(row: Figures) -> dict[str, Any]:
    """As JSON, None for a perplexity that is not finite; bits rounded, a rank has far fewer places than a float."""
    ratio = row.perplexity_ratio if math.isfinite(row.perplexity_ratio) else None
    return {**asdict(row), "bits": rounded(row.bits), "margins": rounded(row.margins),
            "margin_lost": round(row.margin_lost, 3), "perplexity_ratio": ratio}


def rounded(values: Sequence[float]) -> list[float]:
    """To the places that mean something."""
    return [round(value, 3) for value in values]
