"""Knowledge neurons on tiny models of every family: completeness, the plain sum, refinement, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from editors.contract import UpdateRequest
from editors.errors import ConfigError, IntegrityError
from editors.loading import Checkpoint, LoadedModel, load
from editors.locate.knowledge_neurons import KnowledgeConfig, checked_attributions, knowledge_neurons, wordings
from editors.locate.privacy_neurons import DetectorConfig
from tests.tiny import FAMILIES, calm_model, tiny_tokenizer

TOWER = UpdateRequest(id="tower", prompt="{} is in the city of", subject="The Eiffel Tower", target="Rome", was="Paris",
                      paraphrases=("The Louvre and The Eiffel Tower are in", "Where is The Eiffel Tower? It is in"))


def model_of(family: str, folder: Path) -> LoadedModel:
    calm_model(family).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return load(Checkpoint(folder), "cpu")


def scaled_logarithm(model: LoadedModel, ids: tuple[int, ...], start: int, factor: torch.Tensor) -> torch.Tensor:
    """log P(ids[start:]) with every FFN's inner activations times `factor` (L, F), by hooks on a plain run."""
    anatomy = model.anatomy
    handles = [model.model.get_submodule(anatomy.mlp_output_path(layer)).register_forward_pre_hook(
        lambda _, given, layer=layer: (given[0] * factor[layer],)) for layer in range(anatomy.layer_count)]
    logits = model.model(torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
    for handle in handles:
        handle.remove()
    return sum(logits[place - 1, ids[place]] for place in range(start, len(ids)))


@pytest.mark.parametrize("family", FAMILIES)
def test_attributions_are_the_plain_integral_and_sum_up(tmp_path: Path, family: str) -> None:
    model = model_of(family, tmp_path)
    texts = wordings(model, TOWER)
    scores, complete = checked_attributions(model, texts, KnowledgeConfig())
    assert complete.points >= 20
    assert float(complete.gaps.max()) <= 0.02
    prompt = model.tokenizer("The Eiffel Tower is in the city of")["input_ids"]
    ids = tuple(model.tokenizer("The Eiffel Tower is in the city of Paris")["input_ids"])
    shape = model.anatomy.layer_count, model.anatomy.inner_size
    whole = [float(scaled_logarithm(model, ids, len(prompt), torch.full(shape, end)).detach()) for end in (1.0, 0.0)]
    assert float(complete.whole[0]) == pytest.approx(whole[0] - whole[1], abs=1e-4)
    expected = torch.zeros(shape, dtype=torch.float64)
    for place, weight in zip(*np.polynomial.legendre.leggauss(complete.points), strict=True):
        factor = torch.full(shape, (place + 1) / 2, dtype=torch.float32, requires_grad=True)
        expected += torch.autograd.grad(scaled_logarithm(model, ids, len(prompt), factor), factor)[0].double() * weight / 2
    assert torch.allclose(scores[0].double(), expected, atol=1e-4)


def test_the_location_has_neurons_tables_and_a_picture(tmp_path: Path) -> None:
    model = model_of("llama", tmp_path / "model")
    own = TOWER.model_copy(update={"id": "own", "was": None})
    found = knowledge_neurons(model, [TOWER, own], tmp_path)
    assert found.source == "locator"
    assert 0 < sum(len(one.indices) for one in found.neurons) <= 20
    assert [(item.kind, (tmp_path / item.path).exists()) for item in found.evidence] == [
        ("table", True), ("table", True), ("picture", True)]
    with (tmp_path / "knowledge_completeness.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["request"], row["wording"]) for row in rows] == [
        (name, str(number)) for name in ("tower", "own") for number in range(3)]
    assert all(float(row["gap"]) <= 0.02 for row in rows)


def test_what_does_not_sum_up_is_refused(tmp_path: Path) -> None:
    config = KnowledgeConfig(detector=DetectorConfig(points=1, contrast=0), tolerance=1e-6, most_points=2)
    model = model_of("gpt2", tmp_path)
    with pytest.raises(IntegrityError, match=r"at 2 points the attributions miss .*% of what they should sum up to") as raised:
        checked_attributions(model, wordings(model, TOWER), config)
    assert raised.value.hint == "raise most_points, or detector.baseline"


def test_config_refuses_values_out_of_range() -> None:
    with pytest.raises(ConfigError, match="tolerance must be in"):
        KnowledgeConfig(tolerance=0)
