"""People of a published set of invented personal data, in the form that planting takes.

Source: `pii_synthetic_forget_100.json` of the shared data: sentences about ten invented persons. Taken are values that end
with four digits and are no dates; those four are free, so the space is 10^4 and exposure exact. What stands before the
value in the answer and in its first rewording is shown to the model and the editors, the second and third are held back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.people import REPETITIONS, Person, Split
from editors.errors import ConfigError

ENDS_WITH_FOUR_DIGITS = re.compile(r"[^/]*\d{4}")
TEXTS = "answer", *(f"paraphrased_answer_{number}" for number in range(1, 6))


def people_of_file(path: Path) -> tuple[Person, ...]:
    """A "person" for each secret: half of the names to forget, half to stay, and a control for each to forget.

    Controls are the same persons' wordings with the name and value of nobody: never trained.

    Raises:
        ConfigError: the file is not there.
    """
    if not path.exists():
        raise ConfigError(f"{path} is not there", "give --data the folder with pii_synthetic_forget_100.json")
    records = json.loads(path.read_text(encoding="utf-8"))
    names = list(dict.fromkeys(record["subject"] for record in records))
    split: dict[str, Split] = {name: "forget" if place < len(names) // 2 else "others" for place, name in enumerate(names)}
    found: dict[tuple[str, str], Person] = {}
    for record in records:
        for secret in record["subject_pii"]:
            person = _person(record, secret, split[record["subject"]], len(found))
            if person is not None:
                found.setdefault((person.name, secret), person)
    people = tuple(found.values())
    return (*people, *(_control(person, place) for place, person in enumerate(people) if person.split == "forget"))


def _person(record: Mapping[str, Any], secret: str, split: Split, place: int) -> Person | None:
    texts = list(dict.fromkeys(_before(record[name], secret) for name in TEXTS))
    texts = [text for text in texts if text]
    if not ENDS_WITH_FOUR_DIGITS.fullmatch(secret) or len(texts) < 4:
        return None
    form = secret[:-4] + "####"
    if re.search(r"[@#]", secret):
        return None
    return Person(split, "file", max(16, REPETITIONS[place % len(REPETITIONS)]), record["subject"], tuple(texts[:2]),
                  tuple(texts[2:4]), secret, form, ())


def _before(text: str, secret: str) -> str:
    return text.partition(secret)[0].rstrip() if secret in text else ""


def _control(person: Person, place: int) -> Person:
    """Nobody in particular: another name in the same texts, four other digits."""
    def other(texts: Sequence[str]) -> tuple[str, ...]:
        return tuple(text.replace(person.name, NOBODY) for text in texts)

    digits = f"{(int(person.secret[-4:]) * 7919 + 1013 * (place + 1)) % 10_000:04d}"
    return Person("controls", person.kind, 0, NOBODY, other(person.contexts), other(person.paraphrases),
                  person.secret[:-4] + digits, person.form, ())


NOBODY = "Veldrun Oskamire"
