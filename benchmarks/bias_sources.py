"""Published data about gender bias, as the terms and pairs of a request to debias.

DAMA's professions come with two scores a term: what it means (actress: -1) stands before how people see it (accountant:
0.4), the other way round than in `Term`. Its train and test prompts hold different professions, 219 and 101.

Source: Limisiewicz et al. 2023, arXiv:2310.18913 (scores of Bolukbasi et al. 2016, arXiv:1607.06520); Zhao et al. 2018,
arXiv:1804.06876; Nadeem et al. 2021, arXiv:2004.09456; Nangia et al. 2020, arXiv:2010.00133.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, Literal

from editors.debias_request import Pair, Term
from editors.errors import ConfigError

DAMA_TEMPLATES = tuple(f"The {{}} {ending}" for ending in (
    "wanted that", "laughed because", "went home because", "desired that", "wished that", "cried because", "ate because",
    "said that", "ran because", "stayed up because", "whispered that"))
"""The eleven of DAMA's prompts."""
Part = Literal["train", "test"]


def professions(folder: Path, part: Part | None = None) -> tuple[Term, ...]:
    """DAMA's 320 professions, or those of its train (219) or test (101) prompts, in the file's order.

    Raises:
        ConfigError: a file is not there.
    """
    rows = _json(folder / "dama_professions.json")
    terms = tuple(Term(term=name.replace("_", " "), stereotype=seen, factual=meant) for name, meant, seen in rows)
    if part is None:
        return terms
    trained = {row["subject"].removeprefix("The ") for row in _json(folder / "dama_train.json")}
    return tuple(term for term in terms if (term.term in trained) == (part == "train"))


def winobias(folder: Path, kind: Literal[1, 2]) -> tuple[Pair, ...]:
    """Sentences whose pronoun fits the stereotype of whom it means, and does not; kind 2 can be told by syntax alone.

    Raises:
        ConfigError: a file is not there, or the two do not hold the same number of lines.
    """
    files = [folder / "winobias" / f"{side}_stereotyped_type{kind}.txt.dev" for side in ("pro", "anti")]
    sides = [[_unbracketed(line) for line in _text(path).splitlines() if line.strip()] for path in files]
    if len(sides[0]) != len(sides[1]):
        raise ConfigError(f"{files[0]} has {len(sides[0])} sentences and {files[1].name} {len(sides[1])}",
                          "fetch both files of WinoBias again")
    return tuple(Pair(stereotype=pro, opposite=anti) for pro, anti in zip(*sides, strict=True))


def stereoset(folder: Path, *, reverse: bool = False) -> tuple[Pair, ...]:
    """StereoSet's sentences about gender with an unrelated one each; `reverse`: the same about the other gender.

    Raises:
        ConfigError: the file is not there.
    """
    rows = _json(folder / f"stereoset_gender{'_reverse' if reverse else ''}.json")
    kinds = [{kind: row["data"][kind]["sentence"] for kind in ("stereotype", "anti-stereotype", "unrelated")} for row in rows]
    return tuple(Pair(stereotype=row["stereotype"], opposite=row["anti-stereotype"], unrelated=row["unrelated"])
                 for row in kinds)


def crows_pairs(folder: Path) -> tuple[Pair, ...]:
    """CrowS-Pairs' part about gender; the first sentence is the more stereotypical one, whatever its direction.

    Raises:
        ConfigError: the file is not there.
    """
    rows = csv.DictReader(_text(folder / "crows_pairs_anonymized.csv").splitlines())
    return tuple(Pair(stereotype=row["sent_more"], opposite=row["sent_less"]) for row in rows if row["bias_type"] == "gender")


def _unbracketed(line: str) -> str:
    """`12 [The cook] asked [her].` without number and brackets."""
    return line.strip().partition(" ")[2].replace("[", "").replace("]", "")


def _json(path: Path) -> list[Any]:
    rows: list[Any] = json.loads(_text(path))
    return rows


def _text(path: Path) -> str:
    if not path.exists():
        raise ConfigError(f"{path} is not there", "give --data the folder with the published data")
    return path.read_text(encoding="utf-8")
