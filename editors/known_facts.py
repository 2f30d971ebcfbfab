"""Common facts with their answers, on which a model's own knowledge can be edited and measured.

The list that ships was written for this house; none of it is benchmark data. Facts of one relation share its wordings.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editors.errors import ConfigError

SHIPPED = Path(__file__).with_name("known_facts.json")
EXAMPLE = '{"prompt": "The capital of {} is", "subject": "France", "answer": "Paris", "paraphrases": ["{} is governed from"]}'


@dataclass(frozen=True)
class KnownFact:
    """One fact. `{}` stands for the subject in `prompt` and `paraphrases`; facts of one `relation` are neighbours."""

    prompt: str
    subject: str
    answer: str
    paraphrases: tuple[str, ...]
    relation: str

    def asked(self, wording: str) -> str:
        """A wording about this subject."""
        return wording.replace("{}", self.subject, 1)


def shipped_facts() -> tuple[KnownFact, ...]:
    """The house's own list."""
    relations = json.loads(SHIPPED.read_text(encoding="utf-8"))
    return tuple(KnownFact(entry["prompt"], subject, answer, tuple(entry["paraphrases"]), entry["relation"])
                 for entry in relations for subject, answer in entry["facts"].items())


def read_facts(path: Path) -> tuple[KnownFact, ...]:
    """Facts from a file of JSON lines: `prompt`, `subject`, `answer`, `paraphrases`, and `relation` (default: the prompt).

    Raises:
        ConfigError: the file cannot be read, or lines are not facts; all are named.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the facts {path} cannot be read: {error}", "--facts FILE, one JSON object a line") from error
    facts, problems = [], []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                facts.append(_fact(json.loads(line)))
            except (ValueError, KeyError, TypeError) as error:
                problems.append(f"line {number}: {error}")
    if problems or not facts:
        raise ConfigError(f"{path} holds no list of facts: " + ("; ".join(problems) or "it is empty"), f"write {EXAMPLE}")
    return tuple(facts)


def _fact(entry: dict[str, Any]) -> KnownFact:
    unknown = sorted({*entry} - {"prompt", "subject", "answer", "paraphrases", "relation"})
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}")
    texts = [entry[key] for key in ("prompt", "subject", "answer")]
    paraphrases = entry["paraphrases"]
    if not isinstance(paraphrases, list) or not all(isinstance(text, str) and text.strip() for text in [*texts, *paraphrases]):
        raise ValueError("prompt, subject and answer must be text, paraphrases a list of texts")
    if not all("{}" in wording for wording in [entry["prompt"], *paraphrases]):
        raise ValueError("prompt and paraphrases need `{}` where the subject stands")
    prompt, subject, answer = texts
    return KnownFact(prompt, subject, answer, tuple(paraphrases), str(entry.get("relation", prompt)))
