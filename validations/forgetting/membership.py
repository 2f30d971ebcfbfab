"""Membership inference: can the true record be told from never-seen ones by the model's loss?

The loss of the secret after its text is compared with that of values drawn from the same form in the same text (Yeom et
al. 2018, arXiv:1709.01604; the zlib ratio of Carlini et al. 2021, arXiv:2012.07805, section 5.2). A percentile is the
probability that the secret's loss is lower than a control's; their mean over a batch is the attack's AUC: one half where
nothing can be told, 1 where every secret can.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

from editors.forget_request import ForgetRequest
from editors.loading import LoadedModel
from editors.secret_forms import form_of
from editors.secret_rows import SecretRow, row_of
from validations.examination import Finding
from validations.forgetting.settings import ForgetSettings
from validations.scoring import Ask, answer
from validations.tables import mean_interval

BATCH = "batch"
CONTROLS_SEED = 1
"""Added to the seed, so that controls are not the values that exposure draws."""


def membership(model: LoadedModel, requests: Sequence[ForgetRequest], settings: ForgetSettings) -> tuple[Finding, ...]:
    """`membership.percentile` and `.zlib_percentile` of each request in its first context, and `membership_batch.auc`.

    The interval of the batch's AUC (`membership_batch.auc_low`, `.auc_high`) needs two requests.
    """
    records = [_records(model, request, settings) for request in requests]
    asks = [Ask(row.prompt, (row.secret,)) for rows, _ in records for row in rows]
    scores = iter(answer(model, asks))
    found: list[Finding] = []
    percentiles = []
    for request, (rows, sizes) in zip(requests, records, strict=True):
        logs = [next(scores).scores[0].log_probs for _ in rows]
        losses = [-sum(one) / len(one) for one in logs]
        by_zlib = [loss / size for loss, size in zip(losses, sizes, strict=True)]
        percentiles.append(percentile(losses))
        for metric, value in (("percentile", percentiles[-1]), ("zlib_percentile", percentile(by_zlib))):
            found.append(Finding(request=request.id, probe="membership", metric=f"membership.{metric}",
                                 prompt=request.name_of("membership", 0), value=value, n=len(rows) - 1))
    return (*found, *about_the_batch(percentiles))


def percentile(losses: Sequence[float]) -> float:
    """Share of the others whose loss is above the first's, those equal to it counted half; NaN where a loss is no number."""
    if not all(map(math.isfinite, losses)):
        return math.nan
    own, others = losses[0], losses[1:]
    return sum((other > own) + (other == own) / 2 for other in others) / len(others)


def about_the_batch(percentiles: Sequence[float]) -> list[Finding]:
    """The attack's AUC over all requests, with the 95% interval of the mean where there are two."""
    count = len(percentiles)
    values = {"auc": sum(percentiles) / count}
    if count > 1:
        low, high = mean_interval(percentiles)
        values |= {"auc_low": low, "auc_high": min(high, 1.0)}
    return [Finding(request="-", probe="membership_batch", metric=f"membership_batch.{name}", prompt=BATCH, value=value,
                    n=count) for name, value in values.items()]


def _records(model: LoadedModel, request: ForgetRequest, settings: ForgetSettings) -> tuple[list[SecretRow], list[int]]:
    """The true record first, then never-seen ones; and how many bytes each takes compressed."""
    secret, text = request.secret.get_secret_value().strip(), request.context[0].get_secret_value()
    controls = form_of(request).sample(settings.membership_controls, settings.seed + CONTROLS_SEED, leaving_out=secret)
    values = (secret, *controls)
    return ([row_of(request, model.tokenizer, "context", 0, text, value) for value in values],
            [len(zlib.compress(f"{text.rstrip()} {value}".encode())) for value in values])
