"""ROME's own property (the edited matrix maps the key to the value), against the paper's equation written out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editors.contract import UpdateRequest
from editors.errors import ConfigError, IntegrityError
from editors.loading import Checkpoint, LoadedModel, load
from editors.moments import Corpus, corpus_of_texts, second_moments
from editors.patch import applied
from editors.rome import Rome, RomeConfig
from editors.target_search import SearchConfig
from tests.editors.plans import JAMES, SPEED, TOWER, answer_loss, at, batch_of, delta_of, is_unchanged, key_of, state_of
from tests.tiny import FAMILIES, SENTENCES, tiny_folder

# A random model hardly looks back, so the edited token is the one that speaks
BARE = RomeConfig(contexts=0, position="prompt_last", search=SearchConfig(clamp=10.0, steps=40))
SUBJECT = RomeConfig(contexts=0)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param, layers=3)))


@pytest.fixture
def corpus(model: LoadedModel) -> Corpus:
    return corpus_of_texts("sentences", SENTENCES, model, 10_000, window=16)


def test_key_is_mapped_to_the_value_and_the_answer_is_learnt(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    before, loss = state_of(model), answer_loss(model, TOWER)
    patch = Rome(BARE, corpus).plan(model, batch_of(model, TOWER), at(1), tmp_path)
    assert is_unchanged(model, before)
    change = delta_of(model, patch.edits[0])
    assert torch.linalg.matrix_rank(change) == 1
    gained = change @ key_of(model, TOWER, 1).double()
    value = gained + _weight(model, 1) @ key_of(model, TOWER, 1).double()
    with applied(model.model, patch):
        torch.testing.assert_close(_weight(model, 1) @ key_of(model, TOWER, 1).double(), value, rtol=1e-5, atol=1e-5)
        assert answer_loss(model, TOWER) < min(0.5 * loss, loss - 1)
    assert is_unchanged(model, before)


def test_direction_is_the_papers(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    patch = Rome(BARE, corpus).plan(model, batch_of(model, TOWER), at(1), tmp_path)
    key = key_of(model, TOWER, 1).double()
    moment = second_moments(model, [1], corpus, tmp_path)[1].double()
    moment += 1e-6 * moment.diagonal().mean() * torch.eye(len(moment), dtype=torch.float64)
    expected = torch.linalg.inv(moment) @ key
    found = delta_of(model, patch.edits[0])
    row = found[found.norm(dim=1).argmax()]
    assert float(torch.nn.functional.cosine_similarity(row, expected * torch.sign(row @ expected), dim=0)) > 1 - 1e-4


def test_several_facts_are_all_met(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    requests = (TOWER, JAMES, SPEED)
    losses = [answer_loss(model, request) for request in requests]
    patch = Rome(BARE, corpus).plan(model, batch_of(model, *requests), at(1), tmp_path)
    assert torch.linalg.matrix_rank(delta_of(model, patch.edits[0])) == 3
    with applied(model.model, patch):
        assert all(answer_loss(model, request) < loss - 1 for request, loss in zip(requests, losses, strict=True))


def test_requests_about_one_subject_share_one_fact(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    other = UpdateRequest(id="other", prompt="{} can be found in", subject="The Eiffel Tower", target="Rome")
    patch = Rome(SUBJECT, corpus).plan(model, batch_of(model, TOWER, other), at(1), tmp_path)
    assert patch.edits[0].left.shape[1] == 1
    assert patch.provenance["search"]["facts"] == 1


def test_same_key_by_other_prefix_is_refused(model: LoadedModel, corpus: Corpus, tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    from editors.keys import KeyReader

    read = KeyReader.read
    monkeypatch.setattr(KeyReader, "read", lambda reader, last: (read(reader, last)[0][:, [0, 0]], read(reader, last)[1]))
    with pytest.raises(IntegrityError, match="same key"):
        Rome(BARE, corpus).plan(model, batch_of(model, TOWER, JAMES), at(1), tmp_path)


def test_two_layers_are_refused(model: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rome edits one layer, got \[0, 1\]"):
        Rome().plan(model, batch_of(model, TOWER), at(0, 1), tmp_path)


@pytest.mark.parametrize(("options", "message", "hint"), [
    ({"context": 3}, "rome has no option 'context'", "use 'contexts'"),
    ({"contexts": 11}, "rome.contexts must be in [0, 10], got 11", "set contexts inside that range"),
    ({"steps": 0}, "rome.steps must be in [1, 500], got 0", "set steps inside that range"),
    ({"clamp": "wide"}, "rome.clamp must be a number, got 'wide'", "set clamp to a number"),
    ({"steps": 2.5}, "rome.steps must be a whole number, got 2.5", "set steps to a whole number"),
])
def test_bad_options_are_refused_with_the_way_out(options: dict, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RomeConfig.from_options(options)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_options_reach_nested_fields() -> None:
    config = RomeConfig.from_options({"steps": 7, "contexts": 2, "position": "prompt_last"})
    assert (config.search.steps, config.contexts, config.position) == (7, 2, "prompt_last")


def _weight(model: LoadedModel, layer: int) -> torch.Tensor:
    weight = model.model.get_parameter(model.anatomy.mlp_output_parameter(layer)).detach().double()
    return weight if model.anatomy.layout == "out_in" else weight.T
