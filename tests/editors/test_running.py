"""Running statistics: any cut of a line into batches gives the same, and few vectors give no false scale."""

from __future__ import annotations

import pytest
import torch

from editors.patch import Patch
from editors.running import Running, earlier_statistics, remembered_statistics

VECTORS = torch.randn(6, 40, generator=torch.Generator().manual_seed(3)) * torch.arange(1.0, 7.0)[:, None] + 5


@pytest.mark.parametrize("cuts", [(40,), (25, 15), (1,) * 40, (1, 38, 1)])
def test_batches_one_after_the_other_equal_one_batch(cuts: tuple[int, ...]) -> None:
    running = Running.empty(6)
    for part in VECTORS.split(list(cuts), dim=1):
        running = running.joined(part)
    assert running.count == 40
    torch.testing.assert_close(running.mean, VECTORS.double().mean(dim=1))
    torch.testing.assert_close(running.squares / 40, VECTORS.double().var(dim=1, unbiased=False))


def test_memory_of_a_patch_is_taken_up_again() -> None:
    first = Running.empty(6).joined(VECTORS[:, :25])
    stack = [Patch((), {}, remembered_statistics({"w": first})), Patch((), {}, remembered_statistics({"v": first}))]
    again = earlier_statistics(stack, "w", 6).joined(VECTORS[:, 25:])
    torch.testing.assert_close(again.squares, Running.empty(6).joined(VECTORS).squares)
    assert earlier_statistics(stack, "x", 6).count == 0


def test_deviation_is_relative_and_drawn_to_one_while_little_is_known() -> None:
    known = Running.empty(6).joined(VECTORS)
    expected = VECTORS.double().std(dim=1, unbiased=False)
    torch.testing.assert_close(known.relative_deviation(0), expected / expected.square().mean().sqrt())
    torch.testing.assert_close(known.relative_deviation(10**12), torch.ones(6, dtype=torch.float64))
    assert torch.equal(Running.empty(6).joined(VECTORS[:, :1]).relative_deviation(5), torch.ones(6, dtype=torch.float64))
    assert torch.equal(Running.empty(6).joined(torch.zeros(6, 9)).relative_deviation(5), torch.ones(6, dtype=torch.float64))
