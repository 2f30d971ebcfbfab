"""Readers of the bias data sets, into terms, pairs and requests. They read in place and copy nothing."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path

from editors.debias_request import DebiasRequest, Pair, Term

BRACKETS = re.compile(r"\[([^\]]*)\]")
NUMBER = re.compile(r"^\d+\s+")
WINOBIAS_TYPES = (1, 2)
PRONOUNS = ("he", "she", "him", "her", "his", "hers", "himself", "herself")
BY_MEANING = 0.5
"""A factual score from which a term has its group by meaning: actress is at -1, alderman at 0.7, archbishop at 0.4."""


def professions(data: Path) -> list[Term]:
    """DAMA's 320 professions: each [name, factual, stereotype]: actress has -1 in the second place, accountant .4 in the third.

    The file writes `_` for a blank; the prompts do not.
    """
    rows = json.loads((data / "dama_professions.json").read_text(encoding="utf-8"))
    return [Term(term=name.replace("_", " "), factual=factual, stereotype=stereotype) for name, factual, stereotype in rows]


def dama_prompts(data: Path, part: str) -> list[tuple[str, str]]:
    """(template, term) of each of DAMA's prompts; `part` is `train` or `test`. No term is in both.

    Raises:
        ValueError: a prompt holds no known profession.
    """
    rows = json.loads((data / f"dama_{part}.json").read_text(encoding="utf-8"))
    names = sorted((one.term for one in professions(data)), key=len, reverse=True)
    return [_parted(row if isinstance(row, str) else row["prompt"], names) for row in rows]


def dama_terms(data: Path, part: str) -> list[Term]:
    """The professions of one part, in the order of the list of professions."""
    named = dict.fromkeys(term for _, term in dama_prompts(data, part))
    return [one for one in professions(data) if one.term in named]


def dama_templates(data: Path) -> list[str]:
    """DAMA's eleven templates, in the order of their first use."""
    return list(dict.fromkeys(template for template, _ in dama_prompts(data, "train")))


def debias_request(terms: Sequence[Term], templates: Sequence[str], unseen_terms: Sequence[Term] = (),
                   unseen_templates: Sequence[str] = (), pairs: Sequence[Pair] = ()) -> DebiasRequest:
    """A request whose terms with a factual group (`BY_MEANING` or more) are definitional, the rest to be levelled."""
    return DebiasRequest(id="dama", templates=tuple(templates), unseen_templates=tuple(unseen_templates), pairs=tuple(pairs),
                         terms=_levelled(terms), definitional=_definitional(terms),
                         unseen_terms=_levelled(unseen_terms), unseen_definitional=_definitional(unseen_terms))


def winobias(data: Path, kind: int) -> list[Pair]:
    """Development sentences of type 1 or 2, without brackets: stereotype the pro, opposite the anti form.

    The two files are aligned. Left out are the few pairs that differ in more than pronouns (slips of the files, such as
    `needed a desk` beside `needed one`).

    Raises:
        ValueError: `kind` is neither 1 nor 2.
    """
    if kind not in WINOBIAS_TYPES:
        raise ValueError(f"WinoBias has no type {kind}: ask for one of {WINOBIAS_TYPES}")
    pro, anti = (_plain_lines(data / "winobias" / f"{side}_stereotyped_type{kind}.txt.dev") for side in ("pro", "anti"))
    return [Pair(stereotype=one, opposite=other) for one, other in zip(pro, anti, strict=True)
            if _differ_in_pronouns(one, other)]


def stereoset_gender(data: Path, is_reverse: bool = False) -> list[Pair]:
    """StereoSet's gender part, with a sentence without meaning each; the reverse names the other group in the context."""
    name = "stereoset_gender_reverse.json" if is_reverse else "stereoset_gender.json"
    rows = json.loads((data / name).read_text(encoding="utf-8"))
    return [Pair(stereotype=row["data"]["stereotype"]["sentence"], opposite=row["data"]["anti-stereotype"]["sentence"],
                 unrelated=row["data"]["unrelated"]["sentence"]) for row in rows]


def crows_pairs_gender(data: Path) -> list[Pair]:
    """The gender part of CrowS-Pairs, 262 pairs.

    `sent_more` is the more stereotyping of the two whatever `stereo_antistereo` says; that column tells which group it is
    about, and the authors' metric counts both alike.
    """
    with (data / "crows_pairs_anonymized.csv").open(encoding="utf-8", newline="") as file:
        return [_crows_pair(row) for row in csv.DictReader(file) if row["bias_type"] == "gender"]


def _crows_pair(row: dict[str, str]) -> Pair:
    return Pair(stereotype=row["sent_more"], opposite=row["sent_less"])


def _levelled(terms: Sequence[Term]) -> tuple[Term, ...]:
    return tuple(one for one in terms if abs(one.factual or 0.0) < BY_MEANING)


def _definitional(terms: Sequence[Term]) -> tuple[Term, ...]:
    return tuple(one for one in terms if abs(one.factual or 0.0) >= BY_MEANING)


def _differ_in_pronouns(one: str, other: str) -> bool:
    words, others = one.split(), other.split()
    changed = [pair for pair in zip(words, others, strict=False) if pair[0] != pair[1]]
    are_pronouns = all(word.strip(".,") in PRONOUNS for pair in changed for word in pair)
    return len(words) == len(others) and bool(changed) and are_pronouns


def _parted(prompt: str, names: Sequence[str]) -> tuple[str, str]:
    for name in names:
        if prompt.startswith(f"The {name} "):
            return prompt.replace(name, "{}", 1), name
    raise ValueError(f"no known profession in {prompt!r}: is dama_professions.json of the same release?")


def _plain_lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [BRACKETS.sub(r"\1", NUMBER.sub("", line)).strip() for line in lines if line.strip()]
