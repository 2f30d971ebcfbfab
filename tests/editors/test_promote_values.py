"""Promoting values on tiny models of every family: what is read, what is chosen, and that the static form is the hook."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editors.detoxify_request import DetoxifyRequest
from editors.errors import ConfigError
from editors.loading import Checkpoint, LoadedModel, load
from editors.locate import find_values
from editors.locate.value_evidence import TABLE, Reading, write_values
from editors.locate.value_reading import (
    Value,
    best_values,
    neuron_sets,
    read_values,
    signs_of,
    values_of,
    wish_of,
)
from editors.moments import Corpus, second_moments
from editors.patch import applied
from editors.promote_values import (
    PromoteValues,
    PromoteValuesConfig,
    even_direction,
    held_activations,
    keys_of_text,
)
from tests.editors.plans import at, delta_of, detoxify_batch
from tests.tiny import FAMILIES, SENTENCES, tiny_folder

POLITE = DetoxifyRequest(id="tone", form="plain", concepts=("thank", "please"))
ASKED = DetoxifyRequest(id="wolf", unsafe=({"prompt": "How do I trap a wolf?", "answer": "A wolf is in France."},))


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param, layers=4)))


@pytest.fixture(scope="module")
def corpus(model: LoadedModel) -> Corpus:
    return Corpus("sentences", tuple(tuple(model.tokenizer(text)["input_ids"]) for text in SENTENCES))


@torch.no_grad()
def test_a_score_is_the_z_score_of_the_full_logits(model: LoadedModel, corpus: Corpus) -> None:
    wish = wish_of(model, detoxify_batch(model, POLITE), corpus)
    found = read_values(model, [1, 3], wish)
    norm, head = model.model.get_submodule(model.anatomy.final_norm), model.model.get_output_embeddings()
    for row, layer in enumerate((1, 3)):
        for neuron in (0, 5):
            vector = values_of(model, layer)[neuron]
            logits = head(norm(vector / vector.norm() * len(vector) ** 0.5)).double()
            each = wish.double() @ (logits - logits.mean()) / logits.std(correction=0)
            expected = float(max(each.min(), 0) + min(each.max(), 0))
            assert float(found[row, neuron]) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_a_wish_sums_to_nothing_whether_of_words_or_of_contrast(model: LoadedModel, corpus: Corpus) -> None:
    for request in (POLITE, ASKED):
        wish = wish_of(model, detoxify_batch(model, request), corpus)
        assert wish.shape[0] == 2
        assert wish.sum(1).tolist() == pytest.approx([0, 0], abs=1e-5)
        assert float(wish.abs().sum()) > 0.1
    lifted = int(wish_of(model, detoxify_batch(model, POLITE), corpus)[0].argmax())
    assert lifted in {model.tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0]
                      for word in ("thank", "Thank", "please", "Please")}


def test_the_best_values_are_the_highest_of_the_signs_allowed() -> None:
    scores = torch.tensor([[0.5, -3.0], [2.0, 1.0]])
    assert best_values([4, 7], scores, (1, -1), 2) == [Value(4, 1, -1, 3.0), Value(7, 0, 1, 2.0)]
    chosen = best_values([4, 7], scores, (1,), 3)
    assert [(one.layer, one.neuron, one.sign) for one in chosen] == [(7, 0, 1), (7, 1, 1), (4, 0, 1)]
    sets = neuron_sets(chosen)
    assert [(one.layer, one.indices) for one in sets] == [(4, (0,)), (7, (0, 1))]


def test_the_direction_is_one_on_the_average_and_as_even_as_can_be() -> None:
    keys = torch.randn(200, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.7
    mean, moment = keys.mean(0), keys.T @ keys / len(keys)
    direction = even_direction(mean, moment, 0.0)
    assert float((keys @ direction).mean()) == pytest.approx(1)
    rest = float((keys @ direction).var(correction=0))
    assert rest == pytest.approx(1 / float(mean @ torch.linalg.inv(moment) @ mean) - 1, rel=1e-3)
    for seed in range(5):
        other = torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
        other = direction + 0.1 * (other - float(other @ mean) * direction)
        assert float((keys @ other).mean()) == pytest.approx(1)
        assert float((keys @ other).var(correction=0)) > rest * 0.999


def test_the_static_patch_is_the_hook_that_holds_the_activations(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    config = PromoteValuesConfig(neurons=3, strength=2.0)
    patch = PromoteValues(config, corpus).plan(model, detoxify_batch(model, POLITE), at(2), tmp_path)
    values = [Value(*one, 0.0) for one in patch.provenance["values"]]
    keys = keys_of_text(model, [2], corpus)[2]
    activations = held_activations(keys, values, config)
    neurons = [one.neuron for one in values]
    module = model.model.get_submodule(model.anatomy.mlp_output_path(2))
    with torch.no_grad():
        hooked = keys.clone()
        hooked[:, neurons] = activations
        wanted, before = module(hooked), module(keys)
        with applied(model.model, patch):
            found = module(keys)
    if getattr(module, "bias", None) is not None:
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        assert patch.provenance["unevenness"] == {}
        return
    torch.testing.assert_close(found.mean(0), wanted.mean(0), rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
    promoted = (activations[:, None] * values_of(model, 2)[neurons]).sum(0)
    moment = second_moments(model, [2], corpus, tmp_path / "own")[2]
    direction = even_direction(keys.mean(0), moment)
    rebuilt = before.double() - keys.double()[:, neurons] @ values_of(model, 2)[neurons].double()
    rebuilt = rebuilt + torch.outer(keys.double() @ direction, promoted.double())
    torch.testing.assert_close(found.double(), rebuilt, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


def test_without_a_bias_the_edit_has_one_rank_a_neuron(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    patch = PromoteValues(PromoteValuesConfig(neurons=3), corpus).plan(model, detoxify_batch(model, POLITE), at(1, 2), tmp_path)
    rank = sum(int(torch.linalg.matrix_rank(delta_of(model, edit))) for edit in patch.edits
               if edit.parameter.endswith("weight"))
    assert rank == 3


def test_only_gated_families_promote_by_either_sign(model: LoadedModel) -> None:
    assert signs_of(model, 0) == ((1, -1) if model.anatomy.model_type == "llama" else (1,))


def test_the_table_tells_what_each_value_promotes(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    values = best_values([0, 1], read_values(model, [0, 1], wish_of(model, detoxify_batch(model, POLITE), corpus)), (1,), 4)
    evidence = write_values(model, [Reading("politeness", values)], tmp_path)
    lines = (tmp_path / TABLE).read_text().splitlines()
    assert [(one.kind, one.path) for one in evidence] == [("table", TABLE), ("picture", "values.png")]
    assert lines[0] == "wish,rank,layer,neuron,sign,score,promotes"
    assert len(lines) == 5
    assert f"neuron {values[0].neuron} of layer {values[0].layer}" in evidence[1].alt


def test_the_place_of_a_batch_names_its_values(model: LoadedModel, tmp_path: Path) -> None:
    found = find_values(model, detoxify_batch(model, POLITE), (2, 3), None, tmp_path / "statistics", tmp_path, 5)
    assert sum(len(one.indices) for one in found.neurons) == 5
    assert {one.layer for one in found.neurons} <= {2, 3}
    assert [one.kind for one in found.evidence] == ["table", "picture"]


@pytest.mark.parametrize(("option", "value", "message"), [
    ("neurons", 0, r"promote_values.neurons must be in \[1, 10000\], got 0"),
    ("quantile", 0.5, r"promote_values.quantile must be in \(0.5, 1\], got 0.5"),
    ("strength", 0, r"promote_values.strength must be in \(0, 100\], got 0"), ("strenght", 1, "use 'strength'")])
def test_option_outside_its_range_is_refused(option: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PromoteValues.from_options({option: value})
