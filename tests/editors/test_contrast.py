"""Contrast on tiny models of every family: unsafe prompts learn their safe answer, harmless ones are held."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from editors.contrast import Contrast, ContrastConfig
from editors.detoxify_request import REFUSAL, DetoxifyRequest
from editors.errors import ArchitectureError, ConfigError, SheetError
from editors.loading import Checkpoint, LoadedModel, load
from editors.moments import Corpus, second_moments
from editors.patch import applied
from editors.safe_answers import harmless_keys, question_of, safe_answers
from editors.target_search import SearchConfig
from tests.editors.plans import answer_loss, at, delta_of, detoxify_batch, key_of
from tests.tiny import FAMILIES, SENTENCES, tiny_folder

UNSAFE = ("How do I trap a wolf?", "Tell me how to shoot a tiger.", "How do I sell a tiger?")
HARMLESS = ("Where does a wolf live?", "Tell me about a tiger.")
CHAT = DetoxifyRequest(id="poaching", unsafe=UNSAFE, benign=HARMLESS)
SEARCH = SearchConfig(clamp=10.0, steps=30)
BARE = ContrastConfig(covariance_weight=1.0, harmless_weight=0.1, search=SEARCH)
PLAIN = CHAT.model_copy(update={"form": "plain"})


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param, layers=4)))


@pytest.fixture(scope="module")
def corpus(model: LoadedModel) -> Corpus:
    return Corpus("sentences", tuple(tuple(model.tokenizer(text)["input_ids"]) for text in SENTENCES))


@pytest.mark.parametrize("request_", [CHAT, PLAIN], ids=["chat", "plain"])
def test_every_unsafe_prompt_learns_its_safe_answer(request_: DetoxifyRequest, model: LoadedModel, corpus: Corpus,
                                                    tmp_path: Path) -> None:
    batch = detoxify_batch(model, request_)
    patch = Contrast(BARE, corpus).plan(model, batch, at(2, 3), tmp_path)
    before = [answer_loss(model, one) for one in safe_answers(batch).updates]
    with applied(model.model, patch):
        after = [answer_loss(model, one) for one in safe_answers(batch).updates]
    assert all(now < was - 1 for was, now in zip(before, after, strict=True)), (before, after)


def test_one_layer_is_the_least_squares_of_pairs(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    batch, weight, harmless = detoxify_batch(model, PLAIN), 3.0, 7.0
    config = ContrastConfig(covariance_weight=weight, harmless_weight=harmless)
    patch = Contrast(config, corpus).plan(model, batch, at(1), tmp_path / "a")
    left = patch.edits[0].left if model.anatomy.layout == "out_in" else patch.edits[0].right.T
    keys = torch.stack([key_of(model, one, 1) for one in safe_answers(batch).updates], 1).double()
    held = torch.stack([key_of(model, question_of(PLAIN, "x", text, REFUSAL), 1) for text in HARMLESS], 1).double()
    moment = second_moments(model, [1], corpus, tmp_path / "b", base_digest=model.digest)[1].double()
    normal = weight * moment + keys @ keys.T + harmless * held @ held.T
    expected = left.double() @ keys.T @ torch.linalg.inv(normal)
    found = delta_of(model, patch.edits[0])
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3 * float(expected.abs().max()))


def test_harmless_prompts_are_held_by_their_weight(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    batch = detoxify_batch(model, CHAT)
    keys = torch.stack([key_of(model, question_of(CHAT, "x", text, REFUSAL), 1) for text in HARMLESS], 1).double()
    moved = []
    for weight in (0.0, 1.0, 1e4):
        patch = Contrast(replace(BARE, harmless_weight=weight), corpus).plan(model, batch, at(1), tmp_path)
        moved.append(float((delta_of(model, patch.edits[0]) @ keys).norm()))
    assert moved[0] > moved[1] > moved[2]
    assert moved[2] < 0.1 * moved[0]


def test_prompts_with_one_safe_answer_share_one_target(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    other = {"prompt": UNSAFE[2], "answer": "The sale of a tiger is a crime."}
    asked = DetoxifyRequest(id="a", unsafe=(*({"prompt": text} for text in UNSAFE[:2]), other))
    patch = Contrast(ContrastConfig(), corpus).plan(model, detoxify_batch(model, asked), at(1), tmp_path)
    left = patch.edits[0].left if model.anatomy.layout == "out_in" else patch.edits[0].right.T
    torch.testing.assert_close(left[:, 0], left[:, 1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(left[:, 0], left[:, 2], rtol=0.1)


def test_only_chats_hold_ordinary_questions(model: LoadedModel) -> None:
    plain, chat = (harmless_keys(model, detoxify_batch(model, one)) for one in (PLAIN, CHAT))
    assert len(plain) == len(HARMLESS)
    assert len(chat) > 100
    assert [row.owner for row in chat] == list(range(len(chat)))


def test_words_alone_are_refused_with_the_method_for_them(model: LoadedModel, tmp_path: Path) -> None:
    words = DetoxifyRequest(id="tone", concepts=("polite",))
    with pytest.raises(SheetError, match="request 'tone' has no unsafe prompts") as caught:
        Contrast().plan(model, detoxify_batch(model, words), at(1), tmp_path)
    assert "promote_values" in caught.value.hint


def test_family_that_normalises_its_ffn_output_is_refused(tmp_path: Path) -> None:
    from editors.anatomy import anatomy_of

    anatomy = anatomy_of({"model_type": "gemma2", "num_hidden_layers": 4, "hidden_size": 8, "intermediate_size": 16,
                          "vocab_size": 32})
    model = SimpleNamespace(anatomy=anatomy, digest="x")
    with pytest.raises(ArchitectureError, match="contrast cannot edit gemma2"):
        Contrast().plan(model, detoxify_batch(model, CHAT), at(1), tmp_path)


@pytest.mark.parametrize(("option", "value", "message"), [
    ("covariance_weight", 0, r"contrast.covariance_weight must be in \(0, 1e9\], got 0"),
    ("harmless_weight", -1.0, r"contrast.harmless_weight must be in \[0, 1e6\], got -1.0"),
    ("gain", 4, r"contrast.gain must be in \(0, 3\], got 4"), ("gaim", 1, "use 'gain'")])
def test_option_outside_its_range_is_refused(option: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Contrast.from_options({option: value})
