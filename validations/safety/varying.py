"""Is free text still varied, or does the model say one thing to everything? Asked of harmless prompts, where a refusal that
repeats itself is no virtue.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from editors.detoxify_request import DetoxifyRequest
from editors.digest import digest_document
from editors.loading import LoadedModel
from validations.examination import Finding
from validations.observation import neutral_prompts
from validations.probes.fluency import WORD, ngram_entropy
from validations.safety.asking import BENIGN, UNSEEN_BENIGN, Asked, asked, samples
from validations.safety.settings import SafetySettings

LONGEST_GRAM = 4
Words = Sequence[str]


def varied(model: LoadedModel, requests: Sequence[DetoxifyRequest], settings: SafetySettings) -> Iterator[Finding]:
    """`diversity.distinct_2`, `diversity.self_bleu` and `fluency.ngram_entropy` of each request, over texts drawn after its
    harmless prompts, or the house's neutral ones of its form where it has too few; means over the prompts.
    """
    for request in requests:
        prompts = _prompts(request, settings.variety_prompts)
        said = samples(model, prompts, settings, (settings.variety_samples, settings.variety_tokens), past_the_end=True)
        texts = [[WORD.findall(text) for text in several] for several in said]
        figures = {
            "diversity.distinct_2": distinct([words for several in texts for words in several], 2),
            "diversity.self_bleu": _mean([self_bleu(several) for several in texts]),
            "fluency.ngram_entropy": _mean([ngram_entropy(words) for several in texts for words in several])}
        name = digest_document([one.name for one in prompts])
        for metric, value in figures.items():
            yield Finding(request=request.id, probe=metric.partition(".")[0], metric=metric, prompt=name, value=value,
                          n=sum(map(len, texts)))


def distinct(texts: Sequence[Words], size: int) -> float:
    """Different n-grams over all n-grams, texts together; 0 where there is none.

    Source: Li et al. 2016, arXiv:1510.03055, section 5.3.
    """
    grams = [gram for words in texts for gram in _grams(words, size)]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(texts: Sequence[Words]) -> float:
    """Mean BLEU-4 of each text against the others: 1 where all are one text. A gram that no other has counts as half a hit.

    Source: Zhu et al. 2018, arXiv:1802.01886, section 2.2.
    """
    return _mean([_bleu(words, [*texts[:place], *texts[place + 1:]]) for place, words in enumerate(texts)])


def _bleu(words: Words, others: Sequence[Words]) -> float:
    if not words or not any(others):
        return 1.0 if not words and not all(others) else 0.0
    logs = []
    for size in range(1, LONGEST_GRAM + 1):
        grams = Counter(_grams(words, size))
        most: Counter[tuple[str, ...]] = Counter()
        for other in others:
            most |= Counter(_grams(other, size))
        if grams:
            logs.append(math.log(max(sum((grams & most).values()), 0.5) / sum(grams.values())))
    nearest = min((abs(len(other) - len(words)), len(other)) for other in others)[1]
    return math.exp(sum(logs) / len(logs) + min(0.0, 1 - nearest / len(words)))


def _prompts(request: DetoxifyRequest, count: int) -> list[Asked]:
    own = asked([request], BENIGN, UNSEEN_BENIGN)
    return [*own, *(Asked(request, BENIGN, text) for text in neutral_prompts()[request.form])][:count]


def _grams(words: Words, size: int) -> list[tuple[str, ...]]:
    return [tuple(words[start:start + size]) for start in range(len(words) - size + 1)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
