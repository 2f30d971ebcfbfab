"""A request to forget that is dropped into an inbox: it is moved, its answer quotes nothing, and verifying asks no secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.flows.private_traces import needles_of, traces
from tests.flows.test_forget import PRIVATE, SECRET, place_in
from tests.tiny import tiny_tokenizer

pytestmark = pytest.mark.flow


def test_the_sheet_lies_in_one_place_and_its_text_nowhere_else(tmp_path: Path) -> None:
    place = place_in(tmp_path)
    box = place.given / "inbox"
    box.mkdir()
    os.utime(place.given / "sheet.yaml", (0, 0))
    (place.given / "sheet.yaml").rename(box / "sheet.yaml")
    worked = place.run("inbox", str(box), "--once")
    assert worked.code == 0, worked.document
    version = worked.document["done"][0]["version"]
    verified = place.run("verify", "demo")
    assert verified.code == 0, verified.document
    assert (verified.document["version"], verified.document["measured"]) == (version, 0)
    assert verified.document["not_measured"] > 0
    assert "its parent may still tell: nothing was asked" in verified.document["notes"][0]
    holding = [path.relative_to(place.given) for path in place.given.rglob("*")
               if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert [(path.parent.as_posix(), path.name.split(".", 1)[1]) for path in holding] == [("inbox/done", "sheet.yaml")]
    (place.given / holding[0]).unlink()
    assert traces(box, needles_of(PRIVATE, tiny_tokenizer())) == []
    assert place.traces() == []
