"""Natural against a slow implementation written out: the whole Jacobian, a dense metric, one inverse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from editors.contract import Estimate, UpdateRequest
from editors.errors import ConfigError, IntegrityError
from editors.loading import Checkpoint, LoadedModel, load
from editors.moments import Corpus, corpus_of_texts, second_moments
from editors.natural import HELD_KEYS, Natural, NaturalConfig, wanted_rises, weights_of, within_radius
from editors.natural_costs import statistics_price
from editors.patch import Patch, applied
from editors.prospect import prospect_of
from editors.sensitivity import sensitivities
from tests.editors.plans import (
    IDENTITY,
    JAMES,
    SPEED,
    TOWER,
    answer_loss,
    at,
    batch_of,
    delta_of,
    is_unchanged,
    seen_of,
    state_of,
)
from tests.tiny import FAMILIES, SENTENCES, tiny_folder

CONFIG = NaturalConfig(passes=1, aim=2.0, enough=1.0, rise=3.0, radius=100.0, slack=0.05, key_loading=0.1, output_loading=0.1)
LAYERS = (1, 2)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param, layers=4)))


@pytest.fixture
def corpus(model: LoadedModel) -> Corpus:
    return corpus_of_texts("sentences", SENTENCES, model, 10_000, window=16)


def test_a_pass_is_the_cheapest_update_with_the_wanted_rises(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    patch = Natural(CONFIG, corpus).plan(model, batch_of(model, TOWER, JAMES), at(*LAYERS), tmp_path)
    facts = [seen_of(model, request, LAYERS) for request in (TOWER, JAMES)]
    expected = slow(model, corpus, tmp_path, facts, [min(CONFIG.aim - fact[2], CONFIG.rise) for fact in facts])
    for edit, layer in zip(patch.edits, LAYERS, strict=True):
        close(delta_of(model, edit), expected[layer])


def test_batches_leave_what_one_batch_of_all_leaves(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    editor, stack = Natural(replace(CONFIG, passes=3), corpus), list[Patch]()
    whole = editor.plan(model, batch_of(model, SPEED, TOWER, JAMES), at(*LAYERS), tmp_path)
    with ExitStack() as line:
        for requests in ((TOWER,), (JAMES,), (SPEED,)):
            stack.append(editor.plan(model, batch_of(model, *requests), at(*LAYERS), tmp_path, earlier=stack))
            line.enter_context(applied(model.model, stack[-1]))
    for edit in whole.edits:
        close(sum(delta_of(model, one) for patch in stack for one in patch.edits if one.parameter == edit.parameter),
              delta_of(model, edit))


def test_a_batch_in_other_layers_takes_the_first_ones_back(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    editor = Natural(CONFIG, corpus)
    first = editor.plan(model, batch_of(model, TOWER), at(1), tmp_path)
    with applied(model.model, first):
        second = editor.plan(model, batch_of(model, JAMES), at(2), tmp_path, earlier=[first])
    changes = {edit.parameter: delta_of(model, edit) for edit in second.edits}
    assert list(changes) == [model.anatomy.mlp_output_parameter(layer) for layer in (2, 1)]
    close(changes[first.edits[0].parameter], -delta_of(model, first.edits[0]))


def test_a_few_facts_upon_many_are_added_and_the_many_read_anew(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    editor = Natural(replace(CONFIG, anew=0.5), corpus)
    first = editor.plan(model, batch_of(model, TOWER, JAMES), at(*LAYERS), tmp_path)
    with applied(model.model, first):
        second = editor.plan(model, batch_of(model, SPEED), at(*LAYERS), tmp_path, earlier=[first])
        facts = [seen_of(model, request, LAYERS) for request in (SPEED, TOWER, JAMES)]
        rises = wanted_rises(torch.tensor([fact[2] for fact in facts]), CONFIG).tolist()
        expected = slow(model, corpus, tmp_path, facts, rises)
    for edit, layer in zip(second.edits, LAYERS, strict=True):
        close(delta_of(model, edit), expected[layer])


def test_a_fact_written_anew_leaves_nothing_of_its_first_answer(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    editor, batch = Natural(CONFIG, corpus), batch_of(model, TOWER.model_copy(update={"target": "Paris"}))
    alone = editor.plan(model, batch, at(*LAYERS), tmp_path)
    first = editor.plan(model, batch_of(model, TOWER), at(*LAYERS), tmp_path)
    with applied(model.model, first):
        again = editor.plan(model, batch, at(*LAYERS), tmp_path, earlier=[first])
    for old, new, expected in zip(first.edits, again.edits, alone.edits, strict=True):
        close(delta_of(model, old) + delta_of(model, new), delta_of(model, expected))


def test_keys_of_another_method_count_as_text(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    """A heavy key without gradients is no fact to be held, but its direction becomes dear."""
    names = [model.anatomy.mlp_output_parameter(layer) for layer in LAYERS]
    key = torch.randn(model.anatomy.inner_size, 1, generator=torch.Generator().manual_seed(0))
    other = Patch((), {}, {f"keys.{name}": HELD_KEYS * key for name in names})
    free, held = (Natural(CONFIG, corpus).plan(model, batch_of(model, TOWER), at(*LAYERS), tmp_path, earlier=stack)
                  for stack in ([], [other]))
    for left, right in zip(free.edits, held.edits, strict=True):
        moved = [float((delta_of(model, edit) @ key.double()).norm()) for edit in (left, right)]
        assert moved[1] < 0.1 * moved[0]


def test_every_form_is_learnt_and_the_model_is_untouched(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    requests = (TOWER, JAMES, SPEED, IDENTITY)
    before, losses = state_of(model), [answer_loss(model, request) for request in requests]
    config = replace(CONFIG, passes=12, contexts=1, position="prompt_last")
    patch = Natural(config, corpus).plan(model, batch_of(model, *requests), at(*LAYERS), tmp_path)
    assert is_unchanged(model, before)
    with applied(model.model, patch):
        assert all(answer_loss(model, request) < loss - 1 for request, loss in zip(requests, losses, strict=True))
    assert not any(word in json.dumps(dict(patch.provenance)) for word in ("Eiffel", "Rome", "French", "Who are"))


def test_wanted_rises_stop_with_enough_and_at_the_most() -> None:
    config = NaturalConfig(aim=2.0, enough=1.0, rise=4.0)
    rises = wanted_rises(torch.tensor([-9.0, -1.0, 0.5, 1.0, 1.5, 5.0]), config)
    torch.testing.assert_close(rises, torch.tensor([4.0, 3.0, 1.5, 0.0, 0.0, 0.0], dtype=torch.float64))


def test_a_fact_alone_moves_its_output_no_further_than_the_radius(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    config = replace(CONFIG, radius=0.01, slack=1e-9)
    patch = Natural(config, corpus).plan(model, batch_of(model, TOWER), at(*LAYERS), tmp_path)
    keys, _, _, scale = seen_of(model, TOWER, LAYERS)
    moved = torch.stack([delta_of(model, edit) @ keys[layer] for edit, layer in zip(patch.edits, LAYERS, strict=True)])
    torch.testing.assert_close(float(moved.norm()), 0.01 * scale, rtol=1e-3, atol=0)


def test_rises_inside_the_radius_are_as_wanted() -> None:
    found = within_radius(torch.tensor([4.0, 4.0, 0.0]), torch.tensor([2.0, 2.0, 0.0]), torch.tensor([1.0, 1.0, 0.0]),
                          torch.tensor([1.0, 3.0, 1.0]))
    torch.testing.assert_close(found, torch.tensor([2.0, 4.0, 0.0]))


def test_kernel_without_a_gradient_is_refused() -> None:
    with pytest.raises(IntegrityError, match="the facts' gradients are not finite, or zero"):
        weights_of(torch.zeros(2, 2, dtype=torch.float64), torch.ones(2, dtype=torch.float64), 0.1)


@pytest.mark.parametrize(("option", "value", "message"), [
    ("passes", 0, r"natural.passes must be in \[1, 100\], got 0"),
    ("rise", 0.0, r"natural.rise must be in \[1e-9, 100\], got 0.0"),
    ("slack", 0.0, r"natural.slack must be in \[1e-9, 1e6\], got 0.0"),
    ("enough", 4.0, "natural.enough must not be above aim, got 4.0 and 2.0"),
    ("key_loadin", 0.1, "use 'key_loading'")])
def test_option_outside_its_range_is_refused(option: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Natural.from_options({option: value})


def test_estimate_grows_with_the_batch_and_the_passes(model: LoadedModel, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tiny_folder(tmp_path / "model", model.anatomy.model_type, layers=4))

    def cost(config: NaturalConfig, *requests: UpdateRequest) -> Estimate:
        return Natural(config).estimate(prospect_of(checkpoint, batch_of(model, *requests), LAYERS, tmp_path, device="cpu"))

    one = cost(NaturalConfig(), TOWER)
    assert cost(NaturalConfig(), TOWER, JAMES).flops > one.flops > 0
    assert cost(NaturalConfig(passes=16), TOWER).flops > one.flops


def test_estimate_counts_the_facts_that_stand(model: LoadedModel, corpus: Corpus, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tiny_folder(tmp_path / "model", model.anatomy.model_type, layers=4))
    first = Natural(CONFIG, corpus).plan(model, batch_of(model, TOWER, JAMES), at(*LAYERS), tmp_path)
    first.save(tmp_path / "patch")

    def searching(stack: Sequence[Path], anew: float) -> float:
        ahead = prospect_of(checkpoint, batch_of(model, SPEED), LAYERS, tmp_path, device="cpu", stack=stack)
        # statistics cost the same and would drown the rest
        return Natural(NaturalConfig(passes=4, anew=anew)).estimate(ahead).flops - statistics_price(ahead).flops

    alone, together, added = searching((), 0.1), searching([tmp_path / "patch"], 0.1), searching([tmp_path / "patch"], 1.0)
    # two earlier facts are read in every pass, or once
    assert together > 2.5 * alone
    assert 1.3 * alone < added < 2 * alone


def test_estimate_counts_what_every_edited_module_holds(model: LoadedModel, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tiny_folder(tmp_path / "model", model.anatomy.model_type, layers=4))

    def memory(*layers: int) -> int:
        return Natural().estimate(prospect_of(checkpoint, batch_of(model, TOWER), layers, tmp_path, device="cpu")).memory_bytes

    hidden, inner = model.anatomy.hidden_size, model.anatomy.inner_size
    # both factors and the update, in float64
    assert memory(1, 2) - memory(1) >= 8 * (inner ** 2 + hidden ** 2 + hidden * inner)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=5e-3, atol=5e-3 * float(expected.abs().max()))


def slow(model: LoadedModel, corpus: Corpus, store: Path, facts, rises: list[float]):
    """Layer -> update (D, F): M^-1 J' (J M^-1 J' + s I)^-1 d, M the block-diagonal metric of all entries of all updates."""
    moments, felt = second_moments(model, LAYERS, corpus, store), sensitivities(model, LAYERS, corpus, store)
    metric = {layer: torch.kron(loaded(felt[layer]), loaded(moments[layer])) for layer in LAYERS}
    rows = {layer: torch.stack([torch.outer(gradients[layer], keys[layer]).flatten() for keys, gradients, *_ in facts])
            for layer in LAYERS}
    cheap = {layer: torch.linalg.solve(metric[layer], rows[layer].T) for layer in LAYERS}
    system = torch.stack([rows[layer] @ cheap[layer] for layer in LAYERS]).sum(dim=0)
    diagonal = system.diagonal().clone()
    weights = torch.linalg.solve(system + CONFIG.slack * diagonal.median() * torch.eye(len(facts)).double(),
                                 torch.tensor(rises).double())
    shape = (model.anatomy.hidden_size, model.anatomy.inner_size)
    return {layer: (cheap[layer] @ weights).reshape(shape) for layer in LAYERS}


def loaded(moment: torch.Tensor) -> torch.Tensor:
    moment = moment.double()
    moment = moment + 0.1 * moment.diagonal().median() * torch.eye(len(moment)).double()
    return moment + 1e-6 * moment.diagonal().mean() * torch.eye(len(moment)).double()
