"""LSDM against its equation, and what it promises: level terms, held definitions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from editors.equalising import Equalising
from editors.errors import ConfigError
from editors.keys import KeyReader
from editors.leaning import definitional_keys, leaning_facts
from editors.loading import Checkpoint, LoadedModel, load
from editors.lsdm import Lsdm, LsdmConfig
from editors.moments import Corpus, corpus_of_texts, second_moments
from editors.patch import applied
from editors.target_search import SearchConfig, search_targets
from tests.editors.leaning import REQUEST, lean_of, leaning_batch
from tests.editors.plans import at, delta_of, is_unchanged, state_of
from tests.tiny import FAMILIES, SENTENCES, tiny_folder

SEARCH = SearchConfig(kl_weight=0.0, stop_loss=1e-4, clamp=20.0, steps=20, learning_rate=0.05)
EXACT = LsdmConfig(covariance_weight=0.0, ridge=1e-6, gain=1.0, contexts=0, search=SEARCH)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param, layers=4)))


@pytest.fixture
def corpus(model: LoadedModel) -> Corpus:
    return corpus_of_texts("sentences", SENTENCES, model, 10_000, window=16)


def test_terms_come_nearer_to_level_and_the_model_is_untouched(model: LoadedModel, tmp_path: Path) -> None:
    before = state_of(model)
    patch = Lsdm(EXACT).plan(model, leaning_batch(model), at(1, 2), tmp_path)
    assert is_unchanged(model, before)
    was = {term.term: lean_of(model, term.term) for term in REQUEST.terms}
    with applied(model.model, patch):
        now = {term: lean_of(model, term) for term in was}
    assert sum(abs(now[term]) for term in now) < sum(abs(was[term]) for term in was)


def test_the_preserved_keys_give_what_they_gave(model: LoadedModel, tmp_path: Path) -> None:
    patch = Lsdm(EXACT).plan(model, leaning_batch(model), at(1), tmp_path)
    held = KeyReader(model, definitional_keys(model, leaning_batch(model), 0), 1).read(1)[0].double()
    written = KeyReader(model, leaning_facts(model, leaning_batch(model), 0).keys, 1).read(1)[0].double()
    change = delta_of(model, patch.edits[0])
    assert float((change @ held).norm()) < 1e-3 * float((change @ written).norm())


def test_one_layer_equals_the_printed_equation(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    """Dense F x F system and an explicit solve; keys read one by one."""
    config = LsdmConfig(covariance_weight=2.0, ridge=0.05, preserve_weight=3.0, gain=1.2, contexts=1, search=SEARCH)
    batch = leaning_batch(model)
    patch = Lsdm(config, corpus).plan(model, batch, at(1), tmp_path)
    facts = leaning_facts(model, batch, 1)
    terms = torch.stack([sum(row.weight * _key(model, row.ids) for row in facts.keys if row.owner == owner)
                         for owner in range(facts.count)]).T
    held = torch.stack([_key(model, row.ids) for row in definitional_keys(model, batch, 1)]).T
    moment = second_moments(model, [1], corpus, tmp_path)[1].double()
    energy = terms.square().sum(0).mean()
    system = terms @ terms.T + 3.0 * held @ held.T + 2.0 * moment + 0.05 * energy * torch.eye(len(terms), dtype=torch.float64)
    wanted = 1.2 * search_targets(model, 1, facts.targets, SEARCH, landscape=Equalising).change.double().T
    expected = wanted @ terms.T @ torch.linalg.inv(system)
    torch.testing.assert_close(delta_of(model, patch.edits[0]), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_more_ridge_writes_less(model: LoadedModel, tmp_path: Path) -> None:
    sizes = []
    for ridge in (1e-6, 0.1, 10.0):
        config = LsdmConfig(covariance_weight=0.0, ridge=ridge, gain=1.0, contexts=0, search=SEARCH)
        sizes.append(float(delta_of(model, Lsdm(config).plan(model, leaning_batch(model), at(1), tmp_path).edits[0]).norm()))
    assert sizes[0] > sizes[1] > sizes[2]


def test_without_text_no_statistics_are_made_and_no_term_is_written_down(model: LoadedModel, tmp_path: Path) -> None:
    patch = Lsdm(EXACT).plan(model, leaning_batch(model), at(1), tmp_path / "statistics")
    assert not (tmp_path / "statistics").exists()
    said = json.dumps(dict(patch.provenance))
    assert not any(word in said for word in ("baker", "mother", "laughed"))
    assert patch.provenance["second_moment"] is None


@pytest.mark.parametrize(("option", "value"), [("covariance_weight", -1), ("ridge", 0), ("gain", 0), ("contexts", 7),
                                               ("preserve_weight", -1)])
def test_an_option_outside_its_range_is_refused_by_name(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"lsdm.{option} must be in"):
        Lsdm.from_options({option: value})


def _key(model: LoadedModel, ids: tuple[int, ...]) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    module = model.model.get_submodule(model.anatomy.mlp_output_path(1))
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        model.model(torch.tensor([ids]))
    handle.remove()
    return seen[0].reshape(len(ids), -1)[-1].double()
