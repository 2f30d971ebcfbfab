"""The near null space: how much it leaves out, that it projects, and what the store keeps of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editors.errors import IntegrityError
from editors.loading import Checkpoint, LoadedModel, load
from editors.moments import corpus_of_texts, second_moments
from editors.null_space import moment_spectra, null_space, spectrum_of
from tests.tiny import SENTENCES, tiny_folder

F = 24


@pytest.fixture
def moment() -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    sample = torch.randn(300, F, generator=generator, dtype=torch.float64) * torch.logspace(0, -2, F, dtype=torch.float64)
    return sample.T @ sample / 300


def test_the_more_is_preserved_the_less_is_free(moment: torch.Tensor) -> None:
    shares = (0.0, 0.3, 0.6, 0.9, 0.99, 0.999)
    spaces = [null_space(spectrum_of(moment), share) for share in shares]
    assert [space.size for space in spaces] == sorted((space.size for space in spaces), reverse=True)
    assert spaces[0].size == F - 1
    assert spaces[-1].size >= 1
    energies = [space.energy for space in spaces]
    assert energies == sorted(energies, reverse=True)
    left = [float(torch.trace(space(moment))) / float(torch.trace(moment)) for space in spaces]
    assert all(free <= 1 - share + 1e-9 for free, share in zip(left, shares, strict=True))


def test_one_direction_is_always_free_and_weighs_something() -> None:
    flat = torch.zeros(F, F)
    flat[0, 0] = 1.0
    space = null_space(spectrum_of(flat), 0.999999)
    assert space.size == F - 1
    assert space.energy > 0
    assert null_space(spectrum_of(torch.eye(F)), 0.999999).size == 1


@pytest.mark.parametrize("energy", [0.2, 0.9, 0.9999])
def test_it_projects_with_the_thinner_basis(moment: torch.Tensor, energy: float) -> None:
    space = null_space(spectrum_of(moment), energy)
    assert space.basis.shape[1] == min(space.size, F - space.size)
    matrix = space(torch.eye(F))
    torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(matrix @ matrix, matrix, rtol=0, atol=1e-12)
    assert round(float(matrix.trace())) == space.size


@pytest.mark.parametrize("broken", [torch.zeros(F, F), torch.full((F, F), float("nan"))])
def test_moment_without_numbers_is_refused(broken: torch.Tensor) -> None:
    with pytest.raises(IntegrityError, match="not finite, or zero"):
        spectrum_of(broken)


def test_store_keeps_each_spectrum_beside_its_moment(tmp_path: Path) -> None:
    model: LoadedModel = load(Checkpoint(tiny_folder(tmp_path / "model")))
    corpus, store = corpus_of_texts("sentences", SENTENCES, model, 10_000, window=16), tmp_path / "store"
    first = moment_spectra(model, [0, 1], corpus, store)
    written = {path: path.stat().st_mtime_ns for path in store.glob("*.spectrum.safetensors")}
    again = moment_spectra(model, [0, 1], corpus, store)
    assert len(written) == 2
    assert {path: path.stat().st_mtime_ns for path in written} == written
    for layer, moment in second_moments(model, [0, 1], corpus, store).items():
        found = first[layer]
        torch.testing.assert_close(found.vectors @ found.values.diag() @ found.vectors.T, moment.double(),
                                   rtol=1e-4, atol=1e-6 * float(moment.abs().max()))
        assert torch.equal(again[layer].vectors, found.vectors)
    damaged = sorted(written)[0]
    damaged.write_bytes(damaged.read_bytes()[:-8] + b"\0" * 8)
    with pytest.raises(IntegrityError, match="does not have the digest"):
        [again[layer] for layer in (0, 1)]
