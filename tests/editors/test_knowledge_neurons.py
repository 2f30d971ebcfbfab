"""Knowledge neurons on tiny models of every family: completeness, the plain sum, refinement, and what is refused."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from editors.contract import UpdateRequest
from editors.errors import ConfigError, IntegrityError
from editors.inner_scale import Slopes
from editors.loading import Checkpoint, LoadedModel, load
from editors.locate.knowledge_neurons import KnowledgeConfig, checked_attributions, knowledge_neurons, wordings
from editors.locate.path_integral import integrate
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
    scores, complete = checked_attributions(model, texts, KnowledgeConfig(tolerance=2e-3))
    assert int(complete.points.min()) >= 20
    assert float(complete.gaps.max()) <= 2e-3
    prompt = model.tokenizer("The Eiffel Tower is in the city of")["input_ids"]
    ids = tuple(model.tokenizer("The Eiffel Tower is in the city of Paris")["input_ids"])
    shape = model.anatomy.layer_count, model.anatomy.inner_size
    whole = [float(scaled_logarithm(model, ids, len(prompt), torch.full(shape, end)).detach()) for end in (1.0, 0.5)]
    assert float(complete.whole[0]) == pytest.approx(whole[0] - whole[1], abs=1e-4)
    expected = torch.zeros(shape, dtype=torch.float64)
    for place, weight in zip(*np.polynomial.legendre.leggauss(32), strict=True):
        factor = torch.full(shape, 0.5 + (place + 1) / 4, dtype=torch.float32, requires_grad=True)
        expected += torch.autograd.grad(scaled_logarithm(model, ids, len(prompt), factor), factor)[0].double() * weight / 4
    assert torch.allclose(scores[0].double(), expected, atol=1e-3)


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


def bump(factor: float) -> Slopes:
    """Of two texts: a smooth one, and one that rises by a nat within a hundredth of the path."""
    rise = 1 / (1 + math.exp(-(factor - 0.7) / 0.002))
    values = torch.tensor([factor**3, factor + rise], dtype=torch.float64)
    slopes = torch.tensor([3 * factor**2, 1 + rise * (1 - rise) / 0.002], dtype=torch.float64)
    return Slopes(values, slopes[:, None, None] * torch.tensor([0.25, 0.75])[None, None])


def test_the_path_is_cut_where_it_is_jagged_until_it_sums_up() -> None:
    seen: list[float] = []

    def watched(factor: float) -> Slopes:
        seen.append(factor)
        return bump(factor)

    scores, complete = integrate(watched, 0.0, 20, 1e-3, 400)
    assert complete.whole.tolist() == pytest.approx([1.0, 2.0])
    assert float(complete.gaps.max()) <= 1e-3
    assert scores[1, 0].tolist() == pytest.approx([0.5, 1.5], rel=2e-3)
    assert sum(0.65 < factor < 0.75 for factor in seen) > len(seen) / 2
    plain = sum(float(weight) / 2 * float(bump((place + 1) / 2).gradients[1].sum())
                for place, weight in zip(*np.polynomial.legendre.leggauss(int(complete.points[0])), strict=True))
    assert abs(plain - 2) > 2 * 1e-3, "the same points evenly do not do"


def test_what_does_not_sum_up_is_refused() -> None:
    with pytest.raises(IntegrityError, match=r"at 25 points the attributions miss .*% of what they should sum up to") as raised:
        integrate(bump, 0.0, 5, 1e-3, 30)
    assert raised.value.hint == "raise most_points, or detector.baseline"
    with pytest.raises(IntegrityError, match="miss nan%"):
        integrate(lambda _: Slopes(torch.tensor([float("nan")]), torch.ones(1, 1, 1)), 0.0, 5, 1e-3, 400)



def test_config_refuses_values_out_of_range() -> None:
    with pytest.raises(ConfigError, match="tolerance must be in"):
        KnowledgeConfig(tolerance=0)
