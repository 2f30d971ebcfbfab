"""Facts that a patch keeps whole, so that a later edit of the line can ask again whether they still stand.

A key says where a fact was written, and its gradient how the answer felt the weights then. A hundred edits later both are
stale, and to hold them holds something else. Only the model as it is says what an answer has become; for that its tokens
must be at hand. They are kept in the patch's memory: all sequences one after the other, and for each its length, its edited
token, where its answer begins, its fact and its context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from editors.errors import IntegrityError
from editors.patch import MEMORY, Patch
from editors.suffix import Row
from editors.target_search import TargetRow

IDS, ROWS = "facts.ids", "facts.rows"


def remembered_facts(rows: Sequence[TargetRow]) -> dict[str, Tensor]:
    """A patch's memory of its facts: `facts.ids` (T,) and `facts.rows` (R, 5), int32. rows: those with an answer."""
    ids = [token for row in rows for token in row.row.ids]
    places = [(len(row.row.ids), row.row.anchor, row.row.reads[0] + 1, row.row.owner, row.context) for row in rows]
    return {IDS: torch.tensor(ids, dtype=torch.int32), ROWS: torch.tensor(places, dtype=torch.int32).reshape(-1, 5)}


def recalled_facts(patches: Sequence[Patch], new: Sequence[TargetRow]) -> tuple[TargetRow, ...]:
    """The facts of earlier patches that still count, oldest first; their owners are 0, 1, ...

    A fact whose edited token has, in one of its sequences, the past of a newer one's is written anew and let go.

    Args:
        patches: What the model carries, in stack order; those that remember no facts give none.
        new: The rows about to be written.
    """
    kept: list[list[TargetRow]] = []
    newer = {_past(row) for row in new}
    for patch in reversed(patches):
        facts = _facts(patch.memory)
        kept += [rows for rows in reversed(facts) if newer.isdisjoint(map(_past, rows))]
        newer.update(_past(row) for rows in facts for row in rows)
    return tuple(replace(row, row=replace(row.row, owner=owner)) for owner, rows in enumerate(reversed(kept)) for row in rows)


def remembers_facts(patch: Patch) -> bool:
    """Whether the patch keeps its facts."""
    return ROWS in patch.memory


def facts_kept(folder: Path) -> int:
    """How many facts the patch in a folder keeps; nothing else of it is read.

    Raises:
        IntegrityError: its tensors cannot be read.
    """
    name = MEMORY + ROWS
    try:
        with safe_open(folder / "patch.safetensors", "pt") as file:
            return len(file.get_tensor(name)[:, 3].unique()) if name in file.keys() else 0  # noqa: SIM118  no mapping
    except (OSError, SafetensorError) as error:
        raise IntegrityError(f"the patch in {folder} cannot be read: {error}", "pull it again from the store") from error


def _facts(memory: Mapping[str, Tensor]) -> list[list[TargetRow]]:
    """Each fact's rows, in the order of their owners."""
    if ROWS not in memory:
        return []
    tokens, start, facts = memory[IDS].tolist(), 0, dict[int, list[TargetRow]]()
    for length, anchor, answer, owner, context in memory[ROWS].tolist():
        ids = tuple(tokens[start:start + length])
        reads = tuple(range(answer - 1, length - 1))
        facts.setdefault(owner, []).append(TargetRow(Row(ids, anchor, owner, reads), ids[answer:], context))
        start += length
    return [facts[owner] for owner in sorted(facts)]


def _past(row: TargetRow) -> tuple[int, ...]:
    return row.row.ids[:row.row.anchor + 1]
