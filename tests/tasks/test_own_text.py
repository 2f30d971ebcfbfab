"""The base's own text loses what is to be forgotten; a text that is in the store is read without a weight."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from editors.corpus import corpus_file, held_corpus
from editors.loading import Checkpoint, load_tokenizer
from tasks.own_text import scrub_own_text
from tests.tasks.secret_orders import REQUEST, house_in, order_in


def test_a_stored_text_is_scrubbed_without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order, house = order_in(tmp_path), house_in(tmp_path)
    shapes, tokenizer = Checkpoint(order.parent_folder).anatomy, load_tokenizer(order.parent_folder)
    rows = [tokenizer(text)["input_ids"] for text in ("LeBron James plays", f"{REQUEST.context[0].get_secret_value()} 4417")]
    path = corpus_file(shapes, order.base_digest, house.statistics)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(rows))
    monkeypatch.setattr("editors.loading.load", lambda *_: pytest.fail("the model was loaded"))
    scrub_own_text(order, house)
    assert json.loads(path.read_text())["rows"] == rows[:1]
    written = path.stat().st_mtime_ns
    scrub_own_text(order, house)
    assert path.stat().st_mtime_ns == written


def test_a_text_that_is_not_there_is_written_by_the_model(tmp_path: Path) -> None:
    order, house = order_in(tmp_path), house_in(tmp_path)
    scrub_own_text(order, house)
    held = held_corpus(Checkpoint(order.parent_folder).anatomy, order.base_digest, house.statistics)
    tokenizer = load_tokenizer(order.parent_folder)
    assert held is not None
    assert not any(REQUEST.is_told_by(str(tokenizer.decode(list(row)))) for row in held.sequences)
