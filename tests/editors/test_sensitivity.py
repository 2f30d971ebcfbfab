"""The Fisher information of FFN outputs against one that is written out, token by token."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editors.errors import IntegrityError
from editors.loading import Checkpoint, LoadedModel, load
from editors.moments import Corpus, corpus_of_texts
from editors.sensitivity import sensitivities
from tests.editors.plans import is_unchanged, state_of
from tests.tiny import FAMILIES, SENTENCES, tiny_folder

LAYERS = (0, 2)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param, layers=4)))


@pytest.fixture
def corpus(model: LoadedModel) -> Corpus:
    return corpus_of_texts("sentences", SENTENCES, model, 200, window=16)


def test_equals_the_slow_implementation(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    before = state_of(model)
    found = sensitivities(model, LAYERS, corpus, tmp_path)
    assert is_unchanged(model, before)
    for layer in LAYERS:
        expected = torch.zeros(model.anatomy.hidden_size, model.anatomy.hidden_size)
        for sequence in corpus.sequences:
            for gradient in gradients_of(model, layer, sequence):
                expected += torch.outer(gradient, gradient) / corpus.tokens
        torch.testing.assert_close(found[layer], expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_what_the_store_holds_is_not_measured_again(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    first, told = sensitivities(model, LAYERS, corpus, tmp_path), list[str]()
    again = sensitivities(model, (2,), corpus, tmp_path, lambda what, *_: told.append(what))
    assert torch.equal(first[2], again[2])
    assert not told


def test_an_edited_model_is_held_by_its_base(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    first = sensitivities(model, (2,), corpus, tmp_path)
    weight = model.model.get_parameter(model.anatomy.mlp_output_parameter(1))
    before = weight.detach().clone()
    try:
        weight.data *= 2
        assert torch.equal(sensitivities(model, (2,), corpus, tmp_path, base_digest=model.digest)[2], first[2])
        assert not torch.equal(sensitivities(model, (2,), corpus, tmp_path / "other")[2], first[2])
    finally:
        weight.data = before


def test_a_damaged_file_is_refused(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    sensitivities(model, (1,), corpus, tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match="does not have the digest it was written with"):
        sensitivities(model, (1,), corpus, tmp_path)


def gradients_of(model: LoadedModel, layer: int, sequence: tuple[int, ...]) -> torch.Tensor:
    """(T, D) of the sequence's log-likelihood, by a zero added to the module's output."""
    probe = torch.zeros(len(sequence), model.anatomy.hidden_size, requires_grad=True)
    module = model.model.get_submodule(model.anatomy.mlp_output_path(layer))
    handle = module.register_forward_hook(lambda _, __, output: output + probe.reshape(output.shape))
    try:
        logits = model.model(torch.tensor([sequence])).logits[0]
    finally:
        handle.remove()
    likelihood = sum(logits[place].log_softmax(-1)[token] for place, token in enumerate(sequence[1:]))
    return torch.autograd.grad(likelihood, probe)[0]
