"""Facts kept in a patch: they come back as they were, in order, and those written anew are let go."""

from __future__ import annotations

from pathlib import Path

import pytest

from editors.errors import IntegrityError
from editors.patch import Patch, load_patch
from editors.recalled import facts_kept, recalled_facts, remembered_facts, remembers_facts
from editors.suffix import Row
from editors.target_search import TargetRow


def fact(owner: int, *ids: int, anchor: int = 1, answer: int = 3, context: int = 0) -> TargetRow:
    return TargetRow(Row(ids, anchor, owner, tuple(range(answer - 1, len(ids) - 1))), ids[answer:], context)


FIRST = (fact(0, 5, 6, 7, 8), fact(0, 9, 5, 6, 7, 8, anchor=2, answer=4, context=1), fact(1, 5, 11, 7, 12, 13))
SECOND = (fact(0, 20, 21, 22, 23),)


def test_facts_come_back_from_the_file_as_they_were(tmp_path: Path) -> None:
    patch = Patch((), {}, remembered_facts(FIRST))
    assert recalled_facts([load_patch(tmp_path, patch.save(tmp_path))], ()) == FIRST


def test_facts_of_a_patch_on_disk_are_counted_alone(tmp_path: Path) -> None:
    patches = {"two": Patch((), {}, remembered_facts(FIRST)), "one": Patch((), {}, remembered_facts(SECOND)), "none": Patch(())}
    for name, patch in patches.items():
        patch.save(tmp_path / name)
    assert {name: facts_kept(tmp_path / name) for name in patches} == {"two": 2, "one": 1, "none": 0}
    (tmp_path / "two" / "patch.safetensors").write_bytes(b"rot")
    with pytest.raises(IntegrityError, match="two cannot be read"):
        facts_kept(tmp_path / "two")


def test_facts_of_several_patches_are_counted_in_stack_order() -> None:
    stack = [Patch((), {}, remembered_facts(FIRST)), Patch(()), Patch((), {}, remembered_facts(SECOND))]
    assert [remembers_facts(patch) for patch in stack] == [True, False, True]
    assert recalled_facts(stack, ()) == (*FIRST, fact(2, 20, 21, 22, 23))


def test_a_fact_written_anew_is_let_go() -> None:
    stack = [Patch((), {}, remembered_facts(rows)) for rows in (FIRST, SECOND)]
    assert recalled_facts(stack, (fact(0, 5, 6, 30, 31),)) == (fact(0, 5, 11, 7, 12, 13), fact(1, 20, 21, 22, 23))
    again = Patch((), {}, remembered_facts((fact(0, 5, 11, 7, 99),)))
    assert recalled_facts([*stack, again], ())[-1] == fact(2, 5, 11, 7, 99)
