"""Second moments against one slow pass a layer, and the store's promises: found again, verified, atomic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from editors.corpus import default_corpus
from editors.errors import IntegrityError
from editors.loading import Checkpoint, LoadedModel, load
from editors.moments import Corpus, corpus_of_texts, held_moments, moment_files, second_moments, weights_digest
from tests.tiny import FAMILIES, INNER, SENTENCES, tiny_folder


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param, layers=3)))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), "llama", layers=3)))


@pytest.fixture
def corpus(model: LoadedModel) -> Corpus:
    return corpus_of_texts("sentences", SENTENCES, model, 10_000, window=16)


def slow_moment(model: LoadedModel, layer: int, corpus: Corpus) -> torch.Tensor:
    """One full forward a sequence, one token at a time, in float64."""
    seen: list[torch.Tensor] = []
    module = model.model.get_submodule(model.anatomy.mlp_output_path(layer))
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().reshape(-1, INNER)))
    for sequence in corpus.sequences:
        model.model(torch.tensor([sequence]))
    handle.remove()
    total = torch.zeros(INNER, INNER, dtype=torch.float64)
    for key in torch.cat(seen).double():
        total += torch.outer(key, key)
    return total / corpus.tokens


def test_one_pass_equals_one_token_at_a_time(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    found = second_moments(model, [0, 2], corpus, tmp_path)
    for layer in (0, 2):
        torch.testing.assert_close(found[layer].double(), slow_moment(model, layer, corpus), rtol=1e-4, atol=1e-6)


def test_pass_stops_at_the_highest_layer_and_reads_no_more_than_a_chunk(model: LoadedModel, corpus: Corpus, tmp_path: Path,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editors.moments.CHUNK_TOKENS", 40)
    entered: dict[str, list[int]] = {}
    watched = {f"block {layer}": model.anatomy.mlp_output_path(layer) for layer in range(3)} | {"head": model.anatomy.head}
    handles = [model.model.get_submodule(path).register_forward_pre_hook(
        lambda _, inputs, name=name: entered.setdefault(name, []).append(inputs[0].numel() // inputs[0].shape[-1]))
        for name, path in watched.items()]
    second_moments(model, [1], corpus, tmp_path)
    for handle in handles:
        handle.remove()
    assert sorted(entered) == ["block 0", "block 1"]
    assert max(entered["block 1"]) <= 40
    assert sum(entered["block 1"]) == corpus.tokens


def test_known_digests_of_a_checkpoint_are_not_taken_again(llama: LoadedModel, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = corpus_of_texts("sentences", SENTENCES, llama, 200)
    hashed = moment_files(replace(llama, tensor_digests={}), [1, 2], corpus, tmp_path)
    monkeypatch.setattr("editors.moments.digest_tensor", lambda _: pytest.fail("digested again"))
    assert moment_files(llama, [1, 2], corpus, tmp_path) == hashed


def test_a_base_is_found_by_its_digest_alone(llama: LoadedModel, tmp_path: Path) -> None:
    corpus = corpus_of_texts("sentences", SENTENCES, llama, 200)
    made = moment_files(llama, [0, 2], corpus, tmp_path, base_digest=llama.digest)
    assert held_moments(llama.digest, [0, 1, 2], corpus, "torch.float32", tmp_path) == made
    assert held_moments(llama.digest, [0], corpus, "torch.bfloat16", tmp_path) == {}
    assert held_moments("0" * 64, [0], corpus, "torch.float32", tmp_path) == {}


def test_corpus_is_cut_and_capped(llama: LoadedModel) -> None:
    corpus = corpus_of_texts("sentences", SENTENCES, llama, 50, window=16)
    assert corpus.tokens <= 50
    assert max(len(sequence) for sequence in corpus.sequences) <= 16


def test_second_call_reads_the_store_and_runs_nothing(llama: LoadedModel, tmp_path: Path) -> None:
    corpus = corpus_of_texts("sentences", SENTENCES, llama, 200)
    first = second_moments(llama, [0, 1], corpus, tmp_path)
    said: list[str] = []
    again = second_moments(llama, [1, 0], corpus, tmp_path, lambda what, _done, _total: said.append(what))
    assert said == []
    assert all(torch.equal(first[layer], again[layer]) for layer in (0, 1))
    assert not list(tmp_path.glob(".writing-*"))


def test_key_depends_on_what_the_keys_depend_on_and_on_nothing_else(llama: LoadedModel) -> None:
    before = [weights_digest(llama, layer) for layer in range(3)]
    with torch.no_grad():
        weight = llama.model.get_parameter(llama.anatomy.mlp_output_parameter(1))
        original = weight.clone()
        weight.add_(1.0)
        after = [weights_digest(llama, layer) for layer in range(3)]
        weight.copy_(original)
    assert [one == two for one, two in zip(before, after, strict=True)] == [True, True, False]
    assert [weights_digest(llama, layer) for layer in range(3)] == before


def test_damaged_file_is_refused_by_name(llama: LoadedModel, tmp_path: Path) -> None:
    corpus = corpus_of_texts("sentences", SENTENCES, llama, 100)
    second_moments(llama, [0], corpus, tmp_path)
    path = next(tmp_path.glob("*.safetensors"))
    content = load_file(path)
    content["second_moment"][0, 0] += 1
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = stream.read(size)
    scratch = tmp_path / "changed.safetensors"
    save_file(content, scratch)
    path.write_bytes(size.to_bytes(8, "little") + header + scratch.read_bytes()[-4 * INNER * INNER:])
    with pytest.raises(IntegrityError, match="does not have the digest"):
        second_moments(llama, [0], corpus, tmp_path)
    path.write_bytes(b"nonsense")
    with pytest.raises(IntegrityError, match="cannot be read"):
        second_moments(llama, [0], corpus, tmp_path)


def test_default_corpus_is_the_models_own_text_and_sampled_once(llama: LoadedModel, tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    first = default_corpus(llama, llama.digest, tmp_path / "one")
    assert default_corpus(llama, llama.digest, tmp_path / "two") == first
    assert len({sequence[1:] for sequence in first.sequences}) > len(first.sequences) // 2
    monkeypatch.setattr("editors.corpus._sampled", lambda *_: pytest.fail("sampled again"))
    assert default_corpus(llama, llama.digest, tmp_path / "one") == first
