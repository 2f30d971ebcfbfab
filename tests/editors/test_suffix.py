"""The suffix runner against the full model: loss and gradient equal on every family, padding and compaction included."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from editors import prefix
from editors.loading import Checkpoint, LoadedModel, load
from editors.suffix import Row, SuffixRunner
from tests.tiny import FAMILIES, HIDDEN, tiny_folder

TEXTS = ("The Eiffel Tower is located in the city of Rome", "Who are you? I am", "LeBron James plays baseball for fun and")
ANCHORS = (3, 0, 5)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """One tiny model of each family, four layers."""
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param, layers=4)))


def rows_of(model: LoadedModel) -> list[Row]:
    """Three rows of mixed lengths, each with three reads, the edited token itself among them."""
    rows = []
    for owner, (text, anchor) in enumerate(zip(TEXTS, ANCHORS, strict=True)):
        ids = tuple(model.tokenizer(text)["input_ids"])
        rows.append(Row(ids, anchor, owner, (anchor, len(ids) - 2, len(ids) - 1)))
    return rows


def label(number: int, read: int) -> int:
    return (7 * number + read) % 100


def fast_loss(runner: SuffixRunner, rows: list[Row], change: torch.Tensor) -> torch.Tensor:
    losses = []
    for chunk in runner.chunks:
        logits = iter(runner.logits(chunk, change[[rows[number].owner for number in chunk.numbers]]))
        labels = [label(number, read) for number in chunk.numbers for read in rows[number].reads]
        losses += [-next(logits).log_softmax(-1)[wanted] for wanted in labels]
    return torch.stack(losses).sum()


def naive_loss(model: LoadedModel, layer: int, rows: list[Row], change: torch.Tensor,
               numbers: Sequence[int] = (0, 1, 2)) -> torch.Tensor:
    """One full forward a row, all layers, all positions, all logits; the change is added by a hook."""
    losses = []
    block = model.model.get_submodule(model.anatomy.block_path(layer))
    for number in numbers:
        row = rows[number]

        def add(_module, _inputs, output, row=row):
            output = output.clone()
            output[0, row.anchor] = output[0, row.anchor] + change[row.owner]
            return output

        handle = block.register_forward_hook(add)
        try:
            logits = model.model(torch.tensor([row.ids])).logits[0]
        finally:
            handle.remove()
        losses += [-logits[read].log_softmax(-1)[label(number, read)] for read in row.reads]
    return torch.stack(losses).sum()


def compare(model: LoadedModel, layer: int, rows: list[Row], token_budget: int = 4096) -> None:
    change = torch.randn(len(TEXTS), HIDDEN, generator=torch.Generator().manual_seed(1)).requires_grad_()
    runner = SuffixRunner(model, layer, rows, token_budget)
    fast, naive = fast_loss(runner, rows, change), naive_loss(model, layer, rows, change)
    torch.testing.assert_close(fast, naive, rtol=1e-4, atol=0)
    gradient, expected = torch.autograd.grad(fast, change)[0], torch.autograd.grad(naive, change)[0]
    assert float((gradient - expected).norm() / expected.norm()) < 1e-4
    assert float(expected.norm()) > 1e-3


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_loss_and_gradient_equal_the_full_run(model: LoadedModel, layer: int, attention: str) -> None:
    model.model.set_attn_implementation(attention)
    compare(model, layer, rows_of(model))


@pytest.mark.parametrize("token_budget", [1, 24, 60])
def test_budget_splits_the_rows_and_changes_nothing(model: LoadedModel, token_budget: int) -> None:
    rows = rows_of(model)
    runner = SuffixRunner(model, 1, rows, token_budget)
    assert len(runner.chunks) > 1 or token_budget == 60
    assert sorted(number for chunk in runner.chunks for number in chunk.numbers) == [0, 1, 2]
    compare(model, 1, rows, token_budget)


def test_kept_rows_go_on_as_before(model: LoadedModel) -> None:
    rows = rows_of(model)
    change = torch.randn(len(TEXTS), HIDDEN, generator=torch.Generator().manual_seed(2))
    runner = SuffixRunner(model, 1, rows)
    runner.keep({0, 2})
    assert sorted(number for chunk in runner.chunks for number in chunk.numbers) == [0, 2]
    with torch.no_grad():
        naive = naive_loss(model, 1, rows, change, (0, 2))
        torch.testing.assert_close(fast_loss(runner, rows, change), naive, rtol=1e-4, atol=0)


def test_clean_states_are_those_of_the_edit_layer(model: LoadedModel) -> None:
    rows = rows_of(model)
    states = SuffixRunner(model, 1, rows).clean_states
    for number, row in enumerate(rows):
        hidden = model.model(torch.tensor([row.ids]), output_hidden_states=True).hidden_states[2]
        torch.testing.assert_close(states[number], hidden[0, row.anchor].detach(), rtol=1e-4, atol=1e-5)


def test_model_keeps_its_own_forward(model: LoadedModel) -> None:
    ids = torch.tensor([model.tokenizer(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        before = model.model(ids).logits
        SuffixRunner(model, 2, rows_of(model))
        torch.testing.assert_close(model.model(ids).logits, before, rtol=0, atol=0)


def shared_rows(model: LoadedModel) -> list[Row]:
    """Twelve rows of three beginnings, each long enough to be worth a pass of its own, with different endings."""
    beginnings = ("one two three four five six seven eight nine ten eleven twelve ",
                  "The road leads north from here past the old mill and over the hill to the sea and on ", "")
    rows = []
    for number in range(12):
        ids = tuple(model.tokenizer(beginnings[number % 3] + TEXTS[number % 2])["input_ids"])
        rows.append(Row((*ids, 7 + number), len(ids) - 4, number, (len(ids) - 4, len(ids) - 1, len(ids))))
    return rows


@pytest.mark.parametrize("layer", [0, 2])
def test_common_beginnings_are_run_once_and_change_nothing(model: LoadedModel, layer: int) -> None:
    rows = shared_rows(model)
    stems = prefix.stem_lengths([(row.ids, row.anchor) for row in rows])
    assert max(stems) > 5
    assert len({row.ids[:length] for row, length in zip(rows, stems, strict=True) if length}) < len(rows)
    change = torch.randn(len(rows), HIDDEN, generator=torch.Generator().manual_seed(4)).requires_grad_()
    fast, naive = fast_loss(SuffixRunner(model, layer, rows), rows, change), naive_loss(model, layer, rows, change, range(12))
    torch.testing.assert_close(fast, naive, rtol=1e-4, atol=0)
    gradient, expected = torch.autograd.grad(fast, change)[0], torch.autograd.grad(naive, change)[0]
    assert float((gradient - expected).norm() / expected.norm()) < 1e-4


def test_chunks_that_shrank_are_joined_and_change_nothing(model: LoadedModel) -> None:
    rows = shared_rows(model)
    runner = SuffixRunner(model, 1, rows, token_budget=16)
    before = len(runner.chunks)
    runner.keep({1, 5, 9, 10})
    assert len(runner.chunks) < min(before, 4)
    change = torch.randn(len(rows), HIDDEN, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        torch.testing.assert_close(fast_loss(runner, rows, change), naive_loss(model, 1, rows, change, (1, 5, 9, 10)),
                                   rtol=1e-4, atol=0)


@pytest.mark.model
@pytest.mark.parametrize("layer", [5, 14])
def test_packaged_model_gives_the_loss_and_gradient_of_the_full_run(packaged_model: Checkpoint, layer: int) -> None:
    model = load(packaged_model)
    rows = rows_of(model)
    change = 5 * torch.randn(3, model.anatomy.hidden_size, generator=torch.Generator().manual_seed(1)).requires_grad_()
    fast, naive = fast_loss(SuffixRunner(model, layer, rows), rows, change), naive_loss(model, layer, rows, change)
    torch.testing.assert_close(fast, naive, rtol=1e-4, atol=0)
    gradient, expected = torch.autograd.grad(fast, change)[0], torch.autograd.grad(naive, change)[0]
    assert float((gradient - expected).norm() / expected.norm()) < 1e-4
