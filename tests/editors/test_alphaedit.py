"""AlphaEdit against the printed equation, its own property (preserved keys keep their outputs), and earlier edits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from editors.alphaedit import AlphaEdit, AlphaEditConfig
from editors.errors import ConfigError
from editors.facts import facts_of
from editors.keys import KeyReader
from editors.loading import Checkpoint, LoadedModel, load
from editors.moments import Corpus, corpus_of_texts, second_moments
from editors.patch import applied
from editors.target_search import SearchConfig, search_targets
from tests.editors.plans import JAMES, SPEED, TOWER, answer_loss, at, batch_of, delta_of, is_unchanged, state_of
from tests.tiny import FAMILIES, SENTENCES, tiny_folder

SEARCH = SearchConfig(clamp=10.0, steps=30)
BARE = AlphaEditConfig(contexts=0, position="prompt_last", preserved_energy=0.5, ridge=1.0, search=SEARCH)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param, layers=4)))


@pytest.fixture
def corpus(model: LoadedModel) -> Corpus:
    return corpus_of_texts("sentences", SENTENCES, model, 10_000, window=16)


def preserved(model: LoadedModel, corpus: Corpus, layer: int, energy: float, store: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvectors (F, m) that carry the share of the trace, and the mean of the other eigenvalues; by plain loops."""
    values, vectors = torch.linalg.eigh(second_moments(model, [layer], corpus, store)[layer].double())
    kept, carried = [], 0.0
    for place in range(len(values) - 1, -1, -1):
        kept.append(place)
        carried += float(values[place] / values.sum())
        if carried >= energy:
            break
    return vectors[:, kept], values[:min(kept)].mean()


def test_one_layer_equals_the_printed_equation(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    """Eq. 14 written out: P and the system are F x F."""
    batch = batch_of(model, TOWER, JAMES)
    patch = AlphaEdit(BARE, corpus).plan(model, batch, at(1), tmp_path)
    facts = facts_of(model, batch, at(1), "prompt_last", 0)
    change = search_targets(model, 1, facts.targets, SEARCH).change.double()
    keys = KeyReader(model, facts.keys, 1).read(1)[0].double()
    vectors, mean = preserved(model, corpus, 1, 0.5, tmp_path)
    identity = torch.eye(len(keys), dtype=torch.float64)
    projector = identity - vectors @ vectors.T
    expected = change.T @ keys.T @ projector @ torch.linalg.inv(keys @ keys.T @ projector + BARE.ridge * mean * identity)
    torch.testing.assert_close(delta_of(model, patch.edits[0]), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_preserved_directions_keep_their_outputs(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    patch = AlphaEdit(BARE, corpus).plan(model, batch_of(model, TOWER, JAMES, SPEED), at(1, 2), tmp_path)
    for layer, edit in zip((1, 2), patch.edits, strict=True):
        vectors, _ = preserved(model, corpus, layer, 0.5, tmp_path)
        delta = delta_of(model, edit)
        assert float((delta @ vectors).norm()) < 1e-5 * float(delta.norm())


def test_the_answers_are_learnt_and_the_model_is_untouched(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    requests = (TOWER, JAMES, SPEED)
    before, losses = state_of(model), [answer_loss(model, request) for request in requests]
    patch = AlphaEdit(BARE, corpus).plan(model, batch_of(model, *requests), at(1, 2), tmp_path)
    assert is_unchanged(model, before)
    with applied(model.model, patch):
        assert all(answer_loss(model, request) < loss - 1 for request, loss in zip(requests, losses, strict=True))


def test_next_batch_disturbs_what_was_written_less(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    editor = AlphaEdit(replace(BARE, position="auto"), corpus)
    first = editor.plan(model, batch_of(model, TOWER), at(1), tmp_path)
    (name,) = first.parameters
    written = first.memory[f"keys.{name}"].double()
    with applied(model.model, first):
        held, free = (editor.plan(model, batch_of(model, JAMES, SPEED), at(1), tmp_path, earlier=stack)
                      for stack in ([first], []))
    moved = [float((delta_of(model, patch.edits[0]) @ written).norm()) for patch in (held, free)]
    assert moved[0] < 0.5 * moved[1]


@pytest.mark.parametrize(("option", "value", "message"), [
    ("preserved_energy", 1.0, r"alphaedit.preserved_energy must be in \[0, 1\), got 1.0"),
    ("ridge", 0.0, r"alphaedit.ridge must be in \(0, 1e9\], got 0.0"),
    ("contexts", 11, r"alphaedit.contexts must be in \[0, 10\], got 11")])
def test_an_option_outside_its_range_is_refused(option: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AlphaEdit.from_options({option: value})
