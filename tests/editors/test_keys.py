"""Keys: an occurrence that begins another's tokens is read in that one's run, and is what it is alone."""

from __future__ import annotations

import pytest
import torch

from editors.facts import KeyRow
from editors.keys import KeyReader, hosted
from editors.loading import Checkpoint, LoadedModel, load
from tests.tiny import FAMILIES, SENTENCES, tiny_folder


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param)))


@pytest.fixture
def rows(model: LoadedModel) -> list[KeyRow]:
    """Every beginning of two sentences, the longest in the middle."""
    texts = [tuple(model.tokenizer(text)["input_ids"]) for text in SENTENCES[1:3]]
    beginnings = [ids[:length] for ids in texts for length in (3, len(ids), 1, 7)]
    return [KeyRow(ids, owner, 0.5) for owner, ids in enumerate(beginnings)]


def test_only_what_begins_no_other_sequence_runs(rows: list[KeyRow]) -> None:
    assert {len(ids): sorted(row.owner for row in held) for ids, held in hosted(rows).items()} == {
        len(rows[1].ids): [0, 1, 2, 3], len(rows[5].ids): [4, 5, 6, 7]}


def test_a_key_read_in_anothers_run_is_that_of_its_own(model: LoadedModel, rows: list[KeyRow]) -> None:
    together, states = KeyReader(model, rows, 1).read(2)
    for row in rows:
        alone, state = KeyReader(model, [KeyRow(row.ids, 0, 0.5)], 1).read(2)
        torch.testing.assert_close(together[:, row.owner], alone[:, 0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(states[:, row.owner], state[:, 0], rtol=1e-4, atol=1e-6)
