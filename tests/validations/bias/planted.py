"""Tiny models that were taught which group follows which term: a biased one, a levelled one, and bad ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

from editors.debias_request import DebiasRequest, Term
from editors.loading import Checkpoint, LoadedModel, load
from tests.tiny import fit, tiny_folder
from tests.validations.bias.asked import asked
from validations.bias.asked import Grid, grids

REQUEST = asked(pairs=())
NEITHER = "Paris"
Taught = Callable[[Grid, Term], tuple[str, ...]]
"""Which words follow a term in that grid, equally often."""


def _of_meaning(term: Term) -> tuple[str, ...]:
    """Four of five times the term's own group, so that odds stay within what a few steps can teach."""
    own, other = REQUEST.groups if (term.factual or 0) > 0 else REQUEST.groups[::-1]
    return (own,) * 4 + (other,)


def biased(grid: Grid, term: Term) -> tuple[str, ...]:
    """Of four who hold a term to be the first group's, as many say that group as the stereotype tells."""
    if term in grid.definitional:
        return _of_meaning(term)
    first = round(2 + 2 * (term.stereotype or 0))
    return (REQUEST.groups[0],) * first + (REQUEST.groups[1],) * (4 - first)


def levelled(grid: Grid, term: Term) -> tuple[str, ...]:
    """Terms imply neither group, what has one by meaning keeps it."""
    return _of_meaning(term) if term in grid.definitional else REQUEST.groups


def without_mother(grid: Grid, term: Term) -> tuple[str, ...]:
    """As levelled, but mother is said to be of the other group."""
    return (REQUEST.groups[0],) * 4 + (REQUEST.groups[1],) if term.term == "mother" else levelled(grid, term)


def silent(grid: Grid, term: Term) -> tuple[str, ...]:
    """Two times in three neither group is said."""
    return (NEITHER,) * 2 * len(levelled(grid, term)) + levelled(grid, term)


def by_heart(grid: Grid, term: Term) -> tuple[str, ...]:
    """Levelled where the editor looked, biased elsewhere."""
    return biased(grid, term) if grid.suffix else levelled(grid, term)


def turned(grid: Grid, term: Term) -> tuple[str, ...]:
    """The bias with its sign changed."""
    if term in grid.definitional:
        return _of_meaning(term)
    first, second = REQUEST.groups
    return tuple(second if group == first else first for group in biased(grid, term))


def taught(folder: Path, teaches: Taught, steps: int = 100) -> LoadedModel:
    """A model that was trained until the words follow as `teaches` says."""
    loaded = load(Checkpoint(tiny_folder(folder)))
    model = copy.deepcopy(loaded.model)
    rows, given = _rows(loaded, REQUEST, teaches)
    model.requires_grad_(True)
    fit(model, rows, steps, given)
    model.requires_grad_(False)
    return LoadedModel(model, loaded.tokenizer, loaded.anatomy, f"{teaches.__name__}-digest", loaded.tensor_digests)


def _rows(model: LoadedModel, request: DebiasRequest, teaches: Taught) -> tuple[list[tuple[int, ...]], list[int]]:
    rows, given = [], []
    for grid in grids(request):
        for prompt, word in [(template.format(term.term), word) for term in grid.everything for template in grid.templates
                             for word in teaches(grid, term)]:
            rows.append(tuple(model.tokenizer(f"{prompt} {word}")["input_ids"]))
            given.append(len(model.tokenizer(prompt)["input_ids"]))
    return rows, given
