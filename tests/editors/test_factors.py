"""Stored factors: those of the moments, halved on disk without loss, found again, verified."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editors.errors import IntegrityError
from editors.factors import moment_factors, packed, unpacked
from editors.loading import Checkpoint, LoadedModel, load
from editors.moments import Corpus, corpus_of_texts, second_moments
from editors.solver import cholesky_factor
from tests.tiny import INNER, SENTENCES, tiny_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), layers=3)))


@pytest.fixture
def corpus(model: LoadedModel) -> Corpus:
    return corpus_of_texts("sentences", SENTENCES, model, 10_000, window=16)


@pytest.mark.parametrize("size", [1, 2, 5, 6, 64])
def test_a_triangle_is_packed_without_loss(size: int) -> None:
    factor = torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(size)).tril()
    rectangle = packed(factor)
    assert torch.equal(unpacked(rectangle), factor)
    assert size % 2 or rectangle.numel() == size * (size + 1) // 2


def test_factors_are_those_of_the_moments(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    factors = moment_factors(model, [0, 2], corpus, tmp_path)
    moments = second_moments(model, [0, 2], corpus, tmp_path)
    for layer in (0, 2):
        assert torch.equal(factors[layer], cholesky_factor(moments[layer]))
        product = factors[layer] @ factors[layer].T
        loaded = moments[layer].double() + 1e-6 * moments[layer].double().diagonal().mean() * torch.eye(INNER)
        torch.testing.assert_close(product, loaded, rtol=1e-9, atol=1e-9)


def test_second_call_reads_and_neither_runs_nor_factors(model: LoadedModel, corpus: Corpus, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    first = moment_factors(model, [0, 1], corpus, tmp_path)[1]
    monkeypatch.setattr("editors.factors.cholesky_factor", lambda *_: pytest.fail("factored again"))
    monkeypatch.setattr("editors.moments.measured_moments", lambda *_: pytest.fail("measured again"))
    monkeypatch.setattr("editors.factors.read_moment", lambda *_: pytest.fail("read the moment too"))
    assert torch.equal(moment_factors(model, [0, 1], corpus, tmp_path)[1], first)
    assert not list(tmp_path.glob(".writing-*"))


def test_a_factor_that_is_missing_is_made_from_the_stored_moment(model: LoadedModel, corpus: Corpus, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    moments = second_moments(model, [1], corpus, tmp_path)
    monkeypatch.setattr("editors.moments.measured_moments", lambda *_: pytest.fail("measured again"))
    assert torch.equal(moment_factors(model, [1], corpus, tmp_path)[1], cholesky_factor(moments[1]))


def test_a_damaged_factor_is_refused_by_name(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    factors = moment_factors(model, [1], corpus, tmp_path)
    content = bytearray(factors.files[1].read_bytes())
    content[-1] ^= 1
    factors.files[1].write_bytes(content)
    with pytest.raises(IntegrityError, match=r"factor\.safetensors does not have the digest"):
        factors[1]
