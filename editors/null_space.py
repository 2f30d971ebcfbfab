"""The directions that ordinary text's keys leave almost empty, where an update disturbs what is preserved least.

The eigenvectors of the second moment C, largest first, are preserved until they carry a given share of its trace; the
rest is the near null space. A share means the same on every model, which an absolute eigenvalue (the authors' 2e-2)
does not. The decomposition costs fifteen Cholesky factors of the same matrix (1.0 CPU seconds at F = 1536, which for five
layers is more than all the rest of a single edit), so it is kept beside the moment.

Source: Fang et al. 2025, "AlphaEdit", arXiv:2410.02355, eqs. 6-8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from editors.contract import Progress, silent
from editors.errors import IntegrityError
from editors.loading import LoadedModel
from editors.moments import Corpus, moment_files, read_moment
from editors.stored import read_tensor, write_tensor

FORMAT = "suture-moment-spectrum-1"
MIN_ENERGY = 1e-6
"""Least energy of the null space against C's mean eigenvalue: a corpus with fewer tokens than F leaves it empty."""


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues (F,) of a second moment, largest first, and eigenvectors (F, F) as columns; float64."""

    values: Tensor
    vectors: Tensor


@dataclass(frozen=True)
class NullSpace:
    """An orthogonal projector P as the thinner of two orthonormal bases; called with keys (F, M), it gives P keys.

    `basis`: (F, r) float64. P is basis basis', or I - basis basis' where `is_complement`.
    """

    basis: Tensor
    is_complement: bool
    size: int
    """Dimensions of the null space."""
    energy: float
    """Mean eigenvalue of C inside it: the mean square of ordinary text's keys along one of its directions."""

    def to(self, device: torch.device) -> NullSpace:
        """The same on another device."""
        return replace(self, basis=self.basis.to(device))

    def __call__(self, keys: Tensor) -> Tensor:
        """(F, M) -> (F, M) float64."""
        inside = self.basis @ (self.basis.T @ keys.double())
        return keys.double() - inside if self.is_complement else inside


def spectrum_of(second_moment: Tensor) -> Spectrum:
    """Eigenvalues and eigenvectors of C (F, F), largest first.

    Raises:
        IntegrityError: C is not finite, or zero.
    """
    moment = second_moment.double()
    if not bool(torch.isfinite(moment).all()) or float(moment.diagonal().mean()) <= 0:
        raise IntegrityError("the second moment of the keys is not finite, or zero",
                             "delete the statistics folder and run again")
    values, vectors = torch.linalg.eigh((moment + moment.T) / 2)
    return Spectrum(values.flip(0).clamp(min=0), vectors.flip(1))


def null_space(spectrum: Spectrum, preserved_energy: float) -> NullSpace:
    """The near null space: all directions but the fewest that carry `preserved_energy` of the trace.

    At least one direction is preserved, and at least one is free.
    """
    values, vectors = spectrum.values, spectrum.vectors
    share = values.cumsum(0) / values.sum()
    preserved = min(int((share < preserved_energy).sum()) + 1, len(values) - 1)
    is_complement = 2 * preserved <= len(values)
    basis = vectors[:, :preserved] if is_complement else vectors[:, preserved:]
    energy = max(float(values[preserved:].mean()), MIN_ENERGY * float(values.mean()))
    return NullSpace(basis, is_complement, len(values) - preserved, energy)


@dataclass(frozen=True)
class Spectra:
    """Layer -> `Spectrum` on the CPU; read when asked for, so that one is in memory at a time."""

    files: Mapping[int, Path]

    def __getitem__(self, layer: int) -> Spectrum:
        """The spectrum of one layer.

        Raises:
            IntegrityError: its file is damaged.
        """
        stored = read_tensor(self.files[layer], "spectrum").double()
        return Spectrum(stored[0], stored[1:])


def moment_spectra(model: LoadedModel, layers: Sequence[int], corpus: Corpus, store: Path,
                   progress: Progress = silent, base_digest: str | None = None) -> Spectra:
    """The spectra of the layers' second moments; what the store lacks is made and kept there, in float32.

    The arguments are those of `editors.moments.second_moments`.

    Raises:
        IntegrityError: a stored moment is damaged, not finite, or zero.
    """
    moments = moment_files(model, layers, corpus, store, progress, base_digest)
    missing = [layer for layer in layers if not spectrum_file(moments[layer]).exists()]
    for done, layer in enumerate(missing):
        found = spectrum_of(read_moment(moments[layer]).to(model.device))
        write_tensor(spectrum_file(moments[layer]), "spectrum", torch.cat([found.values[None], found.vectors]).float().cpu(),
                     {"format": FORMAT})
        progress("spectra", done + 1, len(missing))
    return Spectra({layer: spectrum_file(path) for layer, path in moments.items()})


def spectrum_file(moment: Path) -> Path:
    """Where the spectrum of a stored moment is kept: beside it."""
    return moment.with_name(f"{moment.stem}.spectrum.safetensors")
