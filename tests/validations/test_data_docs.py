"""Great Expectations' own pages say of every rule what the gate found."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from editors.errors import ConfigError
from validations.data_docs import write_data_docs
from validations.gate import Check, expects


def result(highest: float) -> dict:
    frame = pd.DataFrame({"row": ["a/1", "b/2"], "judged": [0.25, 0.75]})
    check = Check("ExpectColumnMaxToBeBetween", {"column": "judged", "min_value": 0, "max_value": highest})
    return expects(frame, [check])[1]


def test_every_rule_has_a_page_with_its_mark(tmp_path: Path) -> None:
    evidence = {"locality.kl": result(0.5), "efficacy.answer": result(1)}
    index = write_data_docs(evidence, "3f9a1c2b7d04", tmp_path / "docs")
    assert all(rule in index.read_text() for rule in ("locality.kl", "efficacy.answer", "3f9a1c2b7d04"))
    pages = {path.parts[-5] + "." + path.parts[-4]: path.read_text() for path in tmp_path.glob("docs/validations/**/*.html")}
    assert sorted(pages) == sorted(evidence)
    marks = {rule: ("</i> Succeeded" in text, "</i> Failed" in text) for rule, text in pages.items()}
    assert marks == {"locality.kl": (False, True), "efficacy.answer": (True, False)}


def test_pages_are_built_into_a_new_folder_only(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(ConfigError, match="is not empty: Data Docs are built into a new folder"):
        write_data_docs({}, "3f9a1c2b7d04", tmp_path)
