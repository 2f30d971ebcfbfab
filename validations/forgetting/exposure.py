"""Exposure: how far up a secret stands among all values it could have been.

exposure = log2 |R| - log2 rank (Carlini et al. 2019, "The Secret Sharer", arXiv:1802.08232, definition 2 and eq. 1), the
rank taken by the log-joint probability of the whole value after its text. It is counted exactly, over every value, where
that takes few enough readings (`counting`), and else estimated from values drawn evenly, with an interval
(Clopper and Pearson 1934). Values as likely as the secret stand half before it and half behind, as they would for one who
guesses in order and draws among equals: a model that holds all values equal exposes none (1 bit).

Controls need no measurement: the ranks of all other values are the other numbers from 1 to |R|, so their mean exposure in
the same text under the same model is known (`mean_of_others`), 1.44 bits in a large space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from editors.forget_request import ForgetRequest
from editors.loading import LoadedModel
from editors.secret_forms import form_of
from editors.secret_rows import SecretRow, secret_rows
from validations.forgetting.counting import Count, Tree, counted
from validations.forgetting.settings import ForgetSettings
from validations.forgetting.spaces import Listed, Place, Space

LEVEL = 0.95
"""Of the interval of a sampled exposure."""
HALVINGS = 50
LISTED_AT_MOST = 20_000
"""Values that are tokenised one by one where characters merge: a second's work."""


@dataclass(frozen=True)
class Exposure:
    """One secret in one text, in bits."""

    request: str
    name: str
    bits: float
    low: float
    high: float
    """Where exact, both are `bits`; else the 95% interval."""
    is_exact: bool
    controls: float
    """Mean exposure of all values never seen, in the same text under the same model."""
    compared: int
    """Values that the secret was ranked among, itself included where that is all of them."""

    @property
    def over_controls(self) -> float:
        """Bits above the mean of the controls."""
        return self.bits - self.controls


@dataclass(frozen=True)
class _Asked:
    """One text of one request: all values where they can be arranged, and some that were drawn, the secret with them."""

    row: SecretRow
    size: int
    whole: Space | None
    sample: Listed


def exposures(model: LoadedModel, requests: Sequence[ForgetRequest], settings: ForgetSettings | None = None, *,
              texts: int | None = None) -> tuple[Exposure, ...]:
    """Exposure of each request's secret in each of its contexts, in order; the model is unchanged.

    Args:
        model: Any known architecture.
        requests: Sealed; the seal names the rows.
        settings: Readings allowed for an exact rank, and how many values are drawn otherwise.
        texts: Only so many contexts of each request; None: all.

    Raises:
        SheetError: a request's form does not fit its secret.
    """
    chosen = settings or ForgetSettings()
    asked = [_asked(model, request, row, chosen) for request in requests
             for row in secret_rows(request, model.tokenizer)[:texts]]
    few = [index for index, one in enumerate(asked) if one.whole and one.whole.nodes <= chosen.exposure_nodes]
    found = {index: _exactly(asked[index], count) for index, count in _count(model, asked, few, None).items()}
    many = [index for index in range(len(asked)) if index not in found]
    trees = [Tree(one.sample, one.row.ids[len(one.sample.prompt):]) for one in (asked[index] for index in many)]
    counts = dict(zip(many, counted(model, trees), strict=True))
    found |= {index: _sampled(asked[index], count) for index, count in counts.items()}
    # None of the sample above it: the secret stands high, so few beginnings are as likely, and an exact count is cheap.
    high = [index for index in many if asked[index].whole and counts[index].above == 0]
    found |= {index: _exactly(asked[index], count)
              for index, count in _count(model, asked, high, chosen.exposure_nodes).items() if count.is_whole}
    return tuple(found[index] for index in range(len(asked)))


def mean_of_others(size: int, bits: float) -> float:
    """Mean exposure of all values of a space but one, whose exposure is `bits`.

    The ranks of all are 1 to |R|, so the sum of all exposures is |R| log2 |R| - log2 |R|!.
    """
    total = size * math.log2(size) - math.lgamma(size + 1) / math.log(2)
    return (total - bits) / (size - 1)


def clopper_pearson(found: float, count: int, level: float = LEVEL) -> tuple[float, float]:
    """Interval of a share of which `found` of `count` were seen; a half is rounded away from the share.

    Source: Clopper and Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial".
    """
    tail = (1 - level) / 2
    low, high = math.floor(found), math.ceil(found)
    return (0.0 if low == 0 else _lowest(lambda share: _at_least(low, count, share) >= tail),
            1.0 if high == count else _lowest(lambda share: 1 - _at_least(high + 1, count, share) <= tail))


def _asked(model: LoadedModel, request: ForgetRequest, row: SecretRow, settings: ForgetSettings) -> _Asked:
    form = form_of(request)
    place = Place(model.tokenizer, request.context[row.index].get_secret_value())
    secret = request.secret.get_secret_value().strip()
    values = form.sample(settings.exposure_samples, settings.seed, leaving_out=secret)
    whole: Space | None = place.product(form)
    if whole is None and form.size <= LISTED_AT_MOST:
        whole = place.listed(tuple(form.values()))
    return _Asked(row, form.size, whole, place.listed((secret, *values)))


def _count(model: LoadedModel, asked: Sequence[_Asked], chosen: Sequence[int], nodes_at_most: int | None) -> dict[int, Count]:
    """Counts in the spaces of all values."""
    spaces = [(asked[index], asked[index].whole) for index in chosen]
    trees = [Tree(space, one.row.ids[len(space.prompt):], nodes_at_most) for one, space in spaces if space]
    return dict(zip(chosen, counted(model, trees), strict=True))


def _exactly(asked: _Asked, count: Count) -> Exposure:
    bits = _bits(asked.size, count.above + count.tied / 2, asked.size - 1)
    return Exposure(asked.row.request, asked.row.name, bits, bits, bits, True, mean_of_others(asked.size, bits), asked.size)


def _sampled(asked: _Asked, count: Count) -> Exposure:
    drawn, above = len(asked.sample.values) - 1, count.above + count.tied / 2
    low, high = (_bits(asked.size, share * drawn, drawn) for share in reversed(clopper_pearson(above, drawn)))
    bits = _bits(asked.size, above, drawn)
    return Exposure(asked.row.request, asked.row.name, bits, low, high, False, mean_of_others(asked.size, bits), drawn)


def _bits(size: int, above: float, others: int) -> float:
    """Exposure of a value with `above` of `others` before it, in a space of `size`."""
    return math.log2(size) - math.log2(1 + (size - 1) * (above / others))


def _at_least(found: int, count: int, share: float) -> float:
    """Probability of `found` or more of `count`, each with probability `share` in (0, 1)."""
    logs = (math.lgamma(count + 1) - math.lgamma(one + 1) - math.lgamma(count - one + 1)
            + one * math.log(share) + (count - one) * math.log1p(-share) for one in range(found, count + 1))
    return math.fsum(map(math.exp, logs))


def _lowest(holds: Callable[[float], bool]) -> float:
    """The smallest share in (0, 1) for which a claim holds that holds for every larger one."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
