"""MEMIT against the printed algorithm, its limit (ROME), and the promises every editor makes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from editors.contract import EditBatch, Message
from editors.facts import QUESTIONS, facts_of, ordinary_keys
from editors.keys import KeyReader
from editors.loading import Checkpoint, LoadedModel, load
from editors.memit import Memit, MemitConfig
from editors.moments import Corpus, corpus_of_texts, second_moments
from editors.patch import applied
from editors.rome import Rome, RomeConfig
from editors.target_search import SearchConfig, search_targets
from tests.editors.plans import IDENTITY, JAMES, SPEED, TOWER, answer_loss, at, batch_of, delta_of, is_unchanged, state_of
from tests.tiny import FAMILIES, SENTENCES, tiny_folder

SEARCH = SearchConfig(clamp=10.0, steps=30)
BARE = MemitConfig(contexts=0, position="prompt_last", covariance_weight=1.0, search=SEARCH)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param, layers=4)))


@pytest.fixture
def corpus(model: LoadedModel) -> Corpus:
    return corpus_of_texts("sentences", SENTENCES, model, 10_000, window=16)


def test_every_form_is_learnt_and_the_model_is_untouched(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    requests = (TOWER, JAMES, SPEED, IDENTITY)
    before, losses = state_of(model), [answer_loss(model, request) for request in requests]
    patch = Memit(BARE, corpus).plan(model, batch_of(model, *requests), at(1, 2), tmp_path)
    assert is_unchanged(model, before)
    assert patch.parameters == tuple(model.anatomy.mlp_output_parameter(layer) for layer in (1, 2))
    with applied(model.model, patch):
        assert all(answer_loss(model, request) < loss - 1 for request, loss in zip(requests, losses, strict=True))
    assert is_unchanged(model, before)


def test_same_edit_twice_has_the_same_digest_and_no_text(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    batch = batch_of(model, TOWER, IDENTITY)
    first = Memit(BARE, corpus).plan(model, batch, at(1, 2), tmp_path)
    second = Memit(BARE, corpus).plan(model, batch, at(1, 2), tmp_path)
    assert first.digest == second.digest
    said = json.dumps(dict(first.provenance))
    assert not any(word in said for word in ("Eiffel", "Rome", "French", "Who are"))


def test_two_layers_equal_the_printed_algorithm(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    """Algorithm 1 written out: dense F x F solves, one full forward a fact, recomputed after each layer."""
    batch, layers = batch_of(model, TOWER, JAMES), [1, 2]
    patch = Memit(BARE, corpus).plan(model, batch, at(*layers), tmp_path)
    facts = facts_of(model, batch, at(*layers), "prompt_last", 0)
    moments = second_moments(model, layers, corpus, tmp_path)
    before, change = state_of(model), search_targets(model, 2, facts.targets, SEARCH).change.double()
    goal = torch.stack([_seen(model, row.ids, 2)[1] for row in facts.keys]).double() + change
    try:
        for place, layer in enumerate(layers):
            seen = [_seen(model, row.ids, layer) for row in facts.keys]
            keys = torch.stack([key for key, _ in seen]).double().T
            left = goal - torch.stack([_seen(model, row.ids, 2)[1] for row in facts.keys]).double()
            moment = moments[layer].double()
            moment += 1e-6 * moment.diagonal().mean() * torch.eye(len(moment), dtype=torch.float64)
            system = BARE.covariance_weight * moment + keys @ keys.T
            expected = (left / (len(layers) - place)).T @ torch.linalg.solve(system, keys).T
            torch.testing.assert_close(delta_of(model, patch.edits[place]), expected, rtol=1e-3,
                                       atol=1e-3 * float(expected.abs().max()))
            weight = model.model.get_parameter(model.anatomy.mlp_output_parameter(layer))
            weight.data += (expected if model.anatomy.layout == "out_in" else expected.T).float()
    finally:
        model.model.load_state_dict(before, strict=False)


def test_one_fact_in_one_layer_tends_to_rome(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    rome = Rome(RomeConfig(contexts=2, search=SEARCH), corpus).plan(model, batch_of(model, TOWER), at(1), tmp_path)
    exact = delta_of(model, rome.edits[0])
    gaps = []
    for weight in (1e1, 1e-2, 1e-6):
        config = MemitConfig(contexts=2, covariance_weight=weight, search=SEARCH)
        memit = Memit(config, corpus).plan(model, batch_of(model, TOWER), at(1), tmp_path)
        gaps.append(float((delta_of(model, memit.edits[0]) - exact).norm() / exact.norm()))
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-4


def test_edited_parent_takes_the_statistics_of_its_base(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    Memit(BARE, corpus).plan(model, batch_of(model, TOWER), at(1, 2), tmp_path)
    stored = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    base, before = model.digest, state_of(model)
    try:
        model.digest = "an edited one"
        model.model.get_parameter(model.anatomy.mlp_output_parameter(1)).data.add_(0.01)
        batch = EditBatch(purpose="update", base_digest=base, parent_digest=model.digest, requests=(JAMES,))
        Memit(BARE, corpus).plan(model, batch, at(1, 2), tmp_path)
        assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == stored
    finally:
        model.digest = base
        model.model.load_state_dict(before, strict=False)


def test_pre_image_names_the_tensors_it_was_made_for(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    from editors.digest import digest_tensor

    patch = Memit(BARE, corpus).plan(model, batch_of(model, TOWER), at(1, 2), tmp_path)
    assert patch.provenance["pre_image"] == {
        name: digest_tensor(model.model.get_parameter(name)) for name in patch.parameters}


def test_ordinary_questions_are_held_by_their_weight(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    keys = KeyReader(model, ordinary_keys(model, "prompt_last"), 1).read(1)[0].double()
    moved = []
    for weight in (0.0, 1.0, 1e4):
        config = replace(BARE, preserve_weight=weight)
        patch = Memit(config, corpus).plan(model, batch_of(model, IDENTITY), at(1), tmp_path)
        moved.append(float((delta_of(model, patch.edits[0]) @ keys).norm()))
    assert moved[0] > moved[1] > moved[2]
    assert moved[2] < 0.1 * moved[0]


def test_plain_batches_hold_no_chat_questions(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    plans = [Memit(replace(BARE, preserve_weight=weight), corpus).plan(model, batch_of(model, TOWER), at(1), tmp_path)
             for weight in (0.0, 5.0)]
    assert torch.equal(plans[0].edits[0].right, plans[1].edits[0].right)


def test_facts_with_one_answer_share_one_target(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    name = IDENTITY.model_copy(update={"id": "name", "messages": (Message(role="user", content="What is your name?"),)})
    config = replace(BARE, share_answers=True, gain=1.2)
    patch = Memit(config, corpus).plan(model, batch_of(model, IDENTITY, JAMES, name), at(1), tmp_path)
    left = patch.edits[0].left if model.anatomy.layout == "out_in" else patch.edits[0].right.T
    torch.testing.assert_close(left[:, 0], left[:, 2], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(left[:, 0], left[:, 1], rtol=0.1)


def test_ordinary_questions_are_not_those_that_are_measured() -> None:
    asked = set(json.loads(QUESTIONS.read_text(encoding="utf-8")))
    measured = QUESTIONS.parents[1] / "validations" / "held_out" / "neutral_prompts.json"
    held_out = json.loads(measured.read_text(encoding="utf-8"))
    assert len(asked) > 100
    assert not asked & set(held_out["chat"])


def _seen(model: LoadedModel, ids: tuple[int, ...], layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The last token's key (F,) and block output (D,) at `layer`, by one full forward."""
    keys: list[torch.Tensor] = []
    states: list[torch.Tensor] = []
    handles = (
        model.model.get_submodule(model.anatomy.mlp_output_path(layer)).register_forward_pre_hook(
            lambda _, inputs: keys.append(inputs[0].detach())),
        model.model.get_submodule(model.anatomy.block_path(layer)).register_forward_hook(
            lambda _, __, output: states.append(output.detach())))
    with torch.no_grad():
        model.model(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return keys[0].reshape(len(ids), -1)[-1], states[0][0, -1]
