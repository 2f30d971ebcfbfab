"""An update in place of earlier ones: the stack adds up to it, by no more factors than it needs."""

from __future__ import annotations

import torch

from editors.patch import Dense, LowRank, Patch
from editors.replacing import least_rank, merged, taking_back

ROWS, COLUMNS = 24, 40


def factors(rank: int, seed: int, name: str = "w") -> LowRank:
    draw = torch.Generator().manual_seed(seed)
    return LowRank(name, torch.randn(ROWS, rank, generator=draw), torch.randn(rank, COLUMNS, generator=draw))


def total(*edits) -> torch.Tensor:
    return sum(edit.delta(torch.zeros(ROWS, COLUMNS)) for edit in edits)


def test_the_stack_adds_up_to_the_edits_and_stays_small() -> None:
    stack: list[Patch] = []
    for seed in range(6):
        wanted = factors(2, seed)
        stack.append(Patch(merged((wanted, *taking_back(stack).edits))))
        torch.testing.assert_close(total(*(edit for patch in stack for edit in patch.edits)), total(wanted), rtol=0, atol=1e-5)
    # each takes back two directions and brings two
    assert [patch.edits[0].left.shape[1] for patch in stack] == [2, 4, 4, 4, 4, 4]


def test_edits_of_full_rank_and_factors_add_up() -> None:
    first = Patch((Dense("w", total(factors(20, 1)).float()),))
    (found,) = merged((factors(2, 2), *taking_back([first]).edits))
    assert isinstance(found, Dense)
    torch.testing.assert_close(total(found, *first.edits), total(factors(2, 2)), rtol=0, atol=1e-5)


def test_a_parameter_that_is_edited_no_more_is_taken_back() -> None:
    found = merged((factors(2, 1, "new"), *taking_back([Patch((factors(2, 2, "old"),))]).edits))
    assert [edit.parameter for edit in found] == ["new", "old"]
    torch.testing.assert_close(total(found[1]), -total(factors(2, 2)))


def test_without_earlier_patches_edits_are_as_they_were() -> None:
    edits = (factors(2, 1),)
    assert merged((*edits, *taking_back([]).edits)) == edits


def test_factors_that_take_one_another_back_leave_the_least() -> None:
    edit, other = factors(3, 1), factors(2, 2)
    found = least_rank(LowRank("w", torch.cat([edit.left, other.left, -other.left], dim=1),
                               torch.cat([edit.right, other.right, other.right])))
    assert found.left.shape == (ROWS, 3)
    torch.testing.assert_close(total(found), total(edit), rtol=0, atol=1e-5)
