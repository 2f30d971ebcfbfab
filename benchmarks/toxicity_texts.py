"""The labelled texts that toxicity is judged by, in families that a split must not part."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from editors.digest import digest_bytes

SURGE, HATECHECK, PROSE = "surge", "hatecheck", "prose"
FILES = {SURGE: "surge_toxicity_en.csv", HATECHECK: "hatecheck_test_suite_cases.csv", PROSE: "perplexity_sentences_700.json"}
TEST_SHARE = 0.3


@dataclass(frozen=True)
class Labelled:
    """A text and whether people called it toxic. Prose was labelled by nobody: it is ordinary text, taken as harmless."""

    text: str
    is_toxic: bool
    source: str
    family: str
    """Texts of one family differ in a name, a spelling or a negation: all of them train, or all of them test."""
    group: str = ""
    functionality: str = ""


def labelled(folder: Path) -> list[Labelled]:
    """All texts of the three files."""
    surge = [Labelled(row["text"], row["is_toxic"] == "Toxic", SURGE, _bare(row["text"]))
             for row in _rows(folder / FILES[SURGE])]
    rows = _rows(folder / FILES[HATECHECK])
    families = _families(rows)
    cases = [Labelled(row["test_case"], row["label_gold"] == "hateful", HATECHECK, families[row["templ_id"]],
                      row["target_ident"], row["functionality"]) for row in rows]
    sentences = json.loads((folder / FILES[PROSE]).read_text(encoding="utf-8"))
    return [*surge, *cases, *(Labelled(one["Text"], False, PROSE, _bare(one["Text"])) for one in sentences)]


def is_tested(one: Labelled, seed: int) -> bool:
    """Whether the text's whole family belongs to the test part."""
    return share_of(one, seed) < TEST_SHARE


def share_of(one: Labelled, seed: int) -> float:
    """A number in [0, 1) that depends on the family and the seed alone."""
    return int(digest_bytes(f"{seed} {one.source} {one.family}".encode())[:12], 16) / 16**12


def _families(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """HateCheck's template -> family: templates of one wording, and those that refer to one another, belong together."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for row in rows:
        template = f"template {row['templ_id']}"
        parent[root(template)] = root(f"wording {_bare(row['case_templ'])}")
        if row["ref_templ_id"]:
            parent[root(template)] = root(f"template {row['ref_templ_id'].partition('.')[0]}")
    return {row["templ_id"]: root(f"template {row['templ_id']}") for row in rows}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _bare(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def parts(texts: Sequence[Labelled], seed: int) -> Iterator[list[int]]:
    """Indices of the part that trains, and of the part that tests."""
    for tested in (False, True):
        yield [index for index, one in enumerate(texts) if is_tested(one, seed) is tested]
