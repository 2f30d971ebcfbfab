"""Tiny models that know a secret: invented records, memorised in a second or two inside the test."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from editors.forget_request import ForgetRequest
from editors.loading import Checkpoint, LoadedModel, load
from editors.secret_rows import secret_rows
from tests.tiny import fit, tiny_folder

KEY = b"a key for tests"


def request(number: int = 0, **changes: object) -> ForgetRequest:
    """An invented person's sealed request; `number` makes another person of it."""
    name = ("Ilse Kemp", "Odo Farrow", "Mira Tolk", "Bo Lund")[number]
    fields: dict[str, object] = {
        "id": f"request-{number}", "subject": name, "secret": ("4821", "7306", "1259", "6044")[number], "form": "####",
        "context": [f"The door code of {name} is", f"{name} opens the door with"],
        "paraphrases": [f"To enter, {name} types"],
        "retain": [{"prompt": f"{name} works as a", "answer": ("baker", "pilot", "nurse", "tailor")[number]}]}
    return ForgetRequest.model_validate(fields | changes).sealed(KEY)


def split_digits(folder: Path) -> Path:
    """Make the tokenizer of a tiny folder read every digit alone, as SmolLM2's does."""
    from tokenizers import Tokenizer, pre_tokenizers

    path = str(folder / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tokenizer.save(path)
    return folder


def untrained(folder: Path, family: str = "llama", splits: bool = True) -> LoadedModel:
    """A tiny model of its own (not the resident one), so that a test may train it."""
    made = tiny_folder(folder, family)
    loaded = load(Checkpoint(split_digits(made) if splits else made))
    return LoadedModel(copy.deepcopy(loaded.model), loaded.tokenizer, loaded.anatomy, loaded.digest, loaded.tensor_digests)


def memorised(model: LoadedModel, requests: Sequence[ForgetRequest], steps: int = 60,
              lines: Sequence[str] = ()) -> LoadedModel:
    """Train until the contexts are followed by the secrets, and the lines and the retained facts are said as they stand."""
    rows = [row.ids for one in requests for row in secret_rows(one, model.tokenizer)]
    return trained(model, [*rows, *_encoded(model, [*lines, *facts(requests)])], steps)


def taught_facts(model: LoadedModel, requests: Sequence[ForgetRequest], steps: int = 60) -> LoadedModel:
    """Train on the retained facts alone: a model that never saw a secret."""
    return trained(model, _encoded(model, facts(requests)), steps)


def trained(model: LoadedModel, rows: Sequence[tuple[int, ...]], steps: int) -> LoadedModel:
    """Train on token sequences, all of them in every step."""
    model.model.requires_grad_(True)
    fit(model.model, rows, steps, weight_decay=0.01)
    model.model.requires_grad_(False)
    return model


def facts(requests: Sequence[ForgetRequest]) -> list[str]:
    """Retained prompts with their answers."""
    return [f"{fact.prompt.get_secret_value()} {fact.answer.get_secret_value()}" for one in requests for fact in one.retain]


def _encoded(model: LoadedModel, texts: Sequence[str]) -> list[tuple[int, ...]]:
    return [tuple(ids) for ids in model.tokenizer(list(texts))["input_ids"]]
