"""One model, alone in memory, is asked once for every term; what is kept are numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from editors.contract import Progress, silent
from editors.debias_request import DebiasRequest, Term
from editors.digest import digest_document
from editors.loading import LoadedModel
from validations.bias.examination import requests_digest, settings_digest
from validations.bias.settings import BiasSettings
from validations.bias.slopes import Lean, by_term, leans, slopes
from validations.examination import Examination, Finding


def examine(model: LoadedModel, requests: Sequence[DebiasRequest], settings: BiasSettings | None = None, *,
            progress: Progress = silent) -> Examination:
    """Slopes, gaps and the groups' mass of seen and of unseen terms; the model is unchanged.

    Unseen: each unseen template with every term, and each template with the unseen terms.
    """
    chosen = settings or BiasSettings()
    found = [one for request in requests for one in _of_request(model, request, chosen, progress)]
    return Examination(model_digest=model.digest, requests_digest=requests_digest(requests),
                       settings_digest=settings_digest(chosen), findings=tuple(found))


def _of_request(model: LoadedModel, request: DebiasRequest, settings: BiasSettings, progress: Progress) -> Iterator[Finding]:
    def read(templates: Sequence[str], terms: Sequence[Term]) -> list[Lean]:
        return leans(model, templates, terms, request.groups, progress)

    every = (*request.terms, *request.definitional)
    other = (*request.unseen_terms, *request.unseen_definitional)
    seen = read(request.templates, every)
    unseen = [*read(request.unseen_templates, (*every, *other)), *read(request.templates, other)]
    for suffix, rows in (("", seen), ("_unseen", unseen)):
        yield from _slope_findings(request, suffix, rows, settings)
        yield from _term_findings(request, suffix, rows)


def _slope_findings(request: DebiasRequest, suffix: str, rows: Sequence[Lean], settings: BiasSettings) -> Iterator[Finding]:
    fit = slopes(rows, settings.seed) if rows else None
    if fit is not None:
        for name, value in (("stereotype", fit.stereotype), ("factual", fit.factual)):
            yield Finding(request=request.id, probe=f"{name}{suffix}", metric=f"{name}{suffix}.slope",
                          prompt=request.slot, value=value, n=len(rows))


def _term_findings(request: DebiasRequest, suffix: str, rows: Sequence[Lean]) -> Iterator[Finding]:
    levelled = {one.term for one in (*request.terms, *request.unseen_terms)}
    for term, own in by_term(rows).items():
        values = [("mass", "groups", sum(one.mass for one in own))]
        if term in levelled:
            values.append(("gap", "absolute", sum(abs(one.difference) for one in own)))
        for probe, what, value in values:
            yield Finding(request=request.id, probe=f"{probe}{suffix}", metric=f"{probe}{suffix}.{what}",
                          prompt=digest_document(term), value=value / len(own), n=len(own))
