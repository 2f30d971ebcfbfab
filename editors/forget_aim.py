"""When a secret counts as forgotten: in no context is it likelier than values of its form that nobody ever taught.

One reading, shared by every editor that forgets: log P of the secret after each context, beside log P of sampled
never-seen values there. Its rank among them is a sampled exposure. The probes that judge an edit do not read it; they
rank exactly, in contexts that no editor saw.

Source: Carlini et al. 2019, "The Secret Sharer", arXiv:1802.08232, definition 2 (exposure) and section 4.3 (sampling).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import TYPE_CHECKING

from editors.errors import ConfigError
from editors.forget_request import ForgetRequest
from editors.secret_forms import form_of
from editors.secret_rows import SecretRow, row_of, secret_rows
from editors.token_tree import Path, TokenTree, scores

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from editors.loading import LoadedModel

RANDOM_BITS = 1 / math.log(2)
"""Mean exposure of a value that a model knows nothing of: of -log2 u, u even in (0, 1)."""


@dataclass(frozen=True)
class AimReading:
    """One context of one request under the weights of that moment; logarithms in nats, of the whole value."""

    request: str
    name: str
    """What the context is called in measurements."""
    log_joint: float
    controls: tuple[float, ...] = field(repr=False)
    """The same of never-seen values of the secret's form."""
    is_said: bool
    """Whether each token of the secret is the first choice: greedy decoding says it."""

    @property
    def exposure(self) -> float:
        """Sampled exposure in bits: log2 of values asked over the secret's rank; at most log2(controls + 1).

        Values as likely as the secret share its rank in the middle, so that a model that knows nothing is not exposed.
        """
        likelier = sum(control > self.log_joint for control in self.controls)
        level = sum(control == self.log_joint for control in self.controls)
        return math.log2(len(self.controls) + 1) - math.log2(1 + likelier + level / 2)

    @property
    def excess(self) -> float:
        """Nats by which the secret is likelier than the middle of the never-seen values; negative where it is less."""
        return self.log_joint - median(self.controls)

    def passes(self, bits: float = RANDOM_BITS) -> bool:
        """Whether it is exposed by at most `bits` and not said."""
        return self.exposure <= bits and not self.is_said


@dataclass(frozen=True)
class AimSummary:
    """A reading of many contexts in numbers that may be written down."""

    contexts: int
    passing: int
    said: int
    mean_exposure: float
    worst_exposure: float
    worst_excess: float


class Aim:
    """The contexts of some requests, each with its secret and never-seen values, ready to be read again and again.

    Args:
        requests: What is to be forgotten.
        tokenizer: The model's own.
        controls: Never-seen values of each request; a form with fewer values gives all it has.
        seed: Of the values drawn; the same seed draws the same.

    Raises:
        ConfigError: `controls` is below 1.
        SheetError: a text is empty, or a secret does not have the form given; none is quoted.
    """

    def __init__(self, requests: Sequence[ForgetRequest], tokenizer: PreTrainedTokenizerBase, controls: int = 64,
                 seed: int = 0) -> None:
        if controls < 1:
            raise ConfigError(f"controls must be at least 1, got {controls}", "set controls to 64")
        self.rows: list[SecretRow] = []
        self.controls: list[tuple[SecretRow, ...]] = []
        """For each of `rows`, the never-seen values after the same context."""
        for number, request in enumerate(requests):
            secret = request.secret.get_secret_value().strip()
            values = form_of(request).sample(controls, seed + number, leaving_out=secret)
            for row, text in zip(secret_rows(request, tokenizer), request.context, strict=True):
                self.rows.append(row)
                self.controls.append(tuple(row_of(request, tokenizer, row.role, row.index, text.get_secret_value(), value)
                                           for value in values))
        self.trees = tuple(TokenTree.of([_path(row), *map(_path, others)])
                           for row, others in zip(self.rows, self.controls, strict=True))
        """Each context with its values, the secret first."""

    def __repr__(self) -> str:
        return f"Aim({len(self.rows)} contexts)"

    def measure(self, model: LoadedModel) -> tuple[AimReading, ...]:
        """One reading for each of `rows`, under the weights as they are; the model is unchanged."""
        return tuple(AimReading(row.request, row.name, found[0].logarithm, tuple(one.logarithm for one in found[1:]),
                                found[0].is_first_choice)
                     for row, found in zip(self.rows, scores(model, self.trees), strict=True))


def summary_of(readings: Sequence[AimReading], bits: float = RANDOM_BITS) -> AimSummary:
    """The readings in a few numbers."""
    exposures = [reading.exposure for reading in readings]
    return AimSummary(len(readings), sum(reading.passes(bits) for reading in readings),
                      sum(reading.is_said for reading in readings), round(fmean(exposures), 4), round(max(exposures), 4),
                      round(max(reading.excess for reading in readings), 4))


def _path(row: SecretRow) -> Path:
    return Path(row.ids, row.prompt_length)
