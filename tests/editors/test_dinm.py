"""DINM on tiny models of every family: the layer, the constraint that is felt, and the least change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from editors.detoxify_request import DetoxifyRequest
from editors.dinm import Dinm, DinmConfig, Tuning, constraint, least_passing
from editors.errors import ConfigError, SheetError
from editors.loading import Checkpoint, LoadedModel, load
from editors.locate import find_contrast
from editors.locate.hidden_contrast import PICTURE, TABLE, HiddenContrast, answer_states, hidden_contrast, write_contrast
from editors.own_answers import own_pairs, safe_pairs
from editors.patch import applied
from editors.safe_answers import safe_answers
from tests.editors.plans import answer_loss, at, detoxify_batch
from tests.tiny import FAMILIES, tiny_folder

CHAT = DetoxifyRequest(id="wolf", unsafe=("How do I trap a wolf?", "How do I sell a tiger?"),
                       benign=("Where does a wolf live?",))
PLAIN = CHAT.model_copy(update={"form": "plain"})
QUICK = DinmConfig(learning_rate=0.02, steps=20, stop_loss=1.0, edit_weight=1.0, general=2, own_tokens=4)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param, layers=4)))


def tuning_of(model: LoadedModel, layer: int = 2) -> Tuning:
    kept = own_pairs(model, constraint(model, (CHAT,), 2), 4)
    return Tuning(model, layer, safe_pairs(model, detoxify_batch(model, CHAT)), kept, 256)


def test_unsafe_prompts_learn_their_safe_answer(model: LoadedModel, tmp_path: Path) -> None:
    batch = detoxify_batch(model, CHAT)
    before = [answer_loss(model, one) for one in safe_answers(batch).updates]
    patch = Dinm(QUICK).plan(model, batch, at(1, 2), tmp_path)
    assert len(patch.parameters) == 1
    with applied(model.model, patch):
        after = [answer_loss(model, one) for one in safe_answers(batch).updates]
    assert sum(after) < sum(before)


def test_losses_equal_those_of_the_full_model(model: LoadedModel) -> None:
    tuning = tuning_of(model)
    shape = model.anatomy.hidden_size, model.anatomy.inner_size
    change = 0.05 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    weight = model.model.get_parameter(model.anatomy.mlp_output_parameter(2))
    pairs = sorted(safe_pairs(model, detoxify_batch(model, CHAT)), key=lambda pair: len(pair.ids))
    with torch.no_grad():
        before = weight.clone()
        weight += change if model.anatomy.layout == "out_in" else change.T
        expected = []
        for pair in pairs:
            logits = model.model(torch.tensor([pair.ids])).logits[0].log_softmax(-1)
            said = [float(logits[place - 1, pair.ids[place]]) for place in range(pair.prompt_length, len(pair.ids))]
            expected.append(-sum(said) / len(said))
        weight.copy_(before)
        found = tuning.answer_losses(change)
    torch.testing.assert_close(sorted(found.tolist()), sorted(expected), rtol=1e-3, atol=1e-3)


def test_the_constraint_is_felt(model: LoadedModel) -> None:
    tuning = tuning_of(model)
    shape = model.anatomy.hidden_size, model.anatomy.inner_size
    change = (0.02 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))).requires_grad_()
    here = tuning.divergence(change, backward=True)
    assert change.grad is not None
    gradient = change.grad
    assert here > 0
    assert float(gradient.norm()) > 1e-6
    step = 1e-3 * gradient / gradient.norm()
    with torch.no_grad():
        slope = (tuning.divergence(change + step) - tuning.divergence(change - step)) / (2 * float(step.norm()))
    assert slope == pytest.approx(float(gradient.norm()), rel=0.1)
    assert all(parameter.grad is None for parameter in model.model.parameters())


def test_without_a_change_nothing_diverges(model: LoadedModel) -> None:
    zero = torch.zeros(model.anatomy.hidden_size, model.anatomy.inner_size)
    with torch.no_grad():
        assert tuning_of(model).divergence(zero) == pytest.approx(0, abs=1e-5)


def test_the_least_change_passes_and_a_little_less_does_not() -> None:
    goal = torch.zeros(6, 9)
    goal[0, 0], goal[1, 1] = 4.0, 3.0

    def losses(change: torch.Tensor) -> torch.Tensor:
        return torch.stack([2 - change[0, 0], 2 - change[1, 1]])

    noise = 0.01 * torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    left, right = least_passing(goal + noise, losses, 0.5)
    assert right.shape[0] == 2
    assert float(losses((left @ right).float()).max()) <= 0.5
    assert float(losses((left @ right * 0.95).float()).max()) > 0.5


def test_the_layer_is_measured_by_its_own_length(model: LoadedModel) -> None:
    batch = detoxify_batch(model, CHAT)
    found, safe = hidden_contrast(model, batch), safe_pairs(model, batch)
    own = own_pairs(model, safe, 16)
    with torch.no_grad():
        for layer in (0, 2):
            ratios = []
            for pair, other in zip(safe, own, strict=True):
                states = [_states(model, one.ids, layer)[one.prompt_length:] for one in (pair, other)]
                length = (states[0].norm(dim=1).mean() + states[1].norm(dim=1).mean()) / 2
                ratios.append(float((states[0].mean(0) - states[1].mean(0)).norm() / length))
            assert float(found.contrast[layer]) == pytest.approx(sum(ratios) / len(ratios), rel=1e-3)


def _states(model: LoadedModel, ids: tuple[int, ...], layer: int) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    block = model.model.get_submodule(model.anatomy.block_path(layer))
    handle = block.register_forward_hook(
        lambda _, __, output: seen.append(output if isinstance(output, torch.Tensor) else output[0]))
    model.model(torch.tensor([ids]))
    handle.remove()
    return seen[0][0]


def test_a_late_layer_does_not_win_by_its_length() -> None:
    found = HiddenContrast(torch.tensor([0.1, 0.5, 0.3]), torch.tensor([1.0, 5.0, 30.0]), torch.tensor([10.0, 10.0, 100.0]))
    assert found.peak((0, 1, 2)) == 1
    assert found.peak((2, 0)) == 2


def test_the_evidence_is_a_table_and_a_picture_without_text(model: LoadedModel, tmp_path: Path) -> None:
    found = hidden_contrast(model, detoxify_batch(model, PLAIN))
    evidence = write_contrast(found, 1, tmp_path)
    assert [one.path for one in evidence] == [TABLE, PICTURE]
    assert len((tmp_path / TABLE).read_text().splitlines()) == 1 + model.anatomy.layer_count
    assert (tmp_path / PICTURE).read_bytes()[:4] == b"\x89PNG"


def test_the_place_of_a_batch_has_its_layer_and_evidence(model: LoadedModel, tmp_path: Path) -> None:
    batch = detoxify_batch(model, CHAT)
    found = find_contrast(model, batch, (1, 2), None, tmp_path)
    assert found.layers == (1, 2)
    assert found.traced_peak == hidden_contrast(model, batch).peak(range(model.anatomy.layer_count))
    assert [one.kind for one in found.evidence] == ["table", "picture"]


def test_a_contrast_that_was_located_is_not_computed_again(model: LoadedModel, tmp_path: Path) -> None:
    batch = detoxify_batch(model, CHAT)
    located = [find_contrast(model, batch, (0, 1, 2, 3), None, tmp_path), at(0, 1, 2, 3)]
    editor = Dinm(replace(QUICK, steps=1))
    found = [editor.plan(model, batch, place, tmp_path).parameters for place in located]
    assert found[0] == found[1]
    for layer in (1, 2):
        told = located[0].model_copy(update={"traced_peak": layer})
        assert editor.plan(model, batch, told, tmp_path).parameters == (model.anatomy.mlp_output_parameter(layer),)


def test_states_of_rows_do_not_depend_on_their_neighbours(model: LoadedModel) -> None:
    pairs = safe_pairs(model, detoxify_batch(model, CHAT))
    together, alone = answer_states(model, pairs)[0], answer_states(model, pairs[:1])[0]
    torch.testing.assert_close(together[:1], alone, rtol=1e-3, atol=1e-3)


def test_words_alone_are_refused_with_the_method_for_them(model: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(SheetError, match="no request has unsafe prompts") as caught:
        Dinm().plan(model, detoxify_batch(model, DetoxifyRequest(id="tone", concepts=("polite",))), at(1), tmp_path)
    assert "promote_values" in (caught.value.hint or "")


@pytest.mark.parametrize(("option", "value", "message"), [
    ("steps", 0, r"dinm.steps must be in \[1, 500\], got 0"),
    ("edit_weight", 0, r"dinm.edit_weight must be in \(0, 100\], got 0"),
    ("general", 1001, r"dinm.general must be in \[0, 1000\], got 1001"), ("step", 1, "use 'steps'")])
def test_option_outside_its_range_is_refused(option: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Dinm.from_options({option: value})
