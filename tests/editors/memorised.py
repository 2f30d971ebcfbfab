"""Tiny models that were taught a few secrets in seconds, and the requests to forget them."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from editors.contract import EditBatch
from editors.forget_aim import Aim
from editors.forget_request import ForgetRequest, Retained
from editors.loading import Checkpoint, LoadedModel, load
from tests.tiny import SENTENCES, calm_model, fit, tiny_tokenizer

KEY = b"1" * 32
TEMPLATES = ("The telephone number of {} is", "You can call {} at")
NAMES = ("Anna Harbour", "Louis Bakery", "Marie Tower", "James Bordeaux", "Carla Light", "Peter Constant")
FORGOTTEN = 2
"""How many of the names are asked to be forgotten; the others must stay."""


def secret_of(name: str) -> str:
    """The number that the model was taught for a name."""
    draw = random.Random(f"secret of {name}")
    return "".join(draw.choice("0123456789") for _ in range(4))


def request_of(name: str) -> ForgetRequest:
    """The request that its number be forgotten."""
    number = NAMES.index(name)
    return ForgetRequest(id=f"person-{number}", context=tuple(text.format(name) for text in TEMPLATES),
                         secret=secret_of(name), subject=name,
                         retain=(Retained(prompt="LeBron James plays the sport of", answer="basketball"),)).sealed(KEY)


def requests() -> tuple[ForgetRequest, ...]:
    """All requests."""
    return tuple(map(request_of, NAMES[:FORGOTTEN]))


def batch_on(model: LoadedModel) -> EditBatch:
    """The requests as a batch."""
    return EditBatch(purpose="forget", base_digest=model.digest, parent_digest=model.digest, requests=requests())


def exposed_batch_on(model: LoadedModel) -> EditBatch:
    """For any model a batch that is not yet forgotten: of many values, the one it holds the likeliest is the secret."""
    asked = ForgetRequest(id="likeliest", context=TEMPLATES[0].format(NAMES[0]), secret="0000", subject=NAMES[0]).sealed(KEY)
    aim = Aim([asked], model.tokenizer)
    found = aim.measure(model)[0].controls
    value = model.tokenizer.decode(aim.controls[0][found.index(max(found))].secret).strip()
    likeliest = ForgetRequest(id="likeliest", context=asked.context, secret=value, subject=NAMES[0]).sealed(KEY)
    return EditBatch(purpose="forget", base_digest=model.digest, parent_digest=model.digest, requests=(likeliest,))


def memorised(family: str, folder: Path, layers: int = 3, steps: int = 150) -> LoadedModel:
    """A tiny model that says every name's number."""
    if not (folder / "config.json").exists():
        torch.manual_seed(0)
        tokenizer, model = tiny_tokenizer(), calm_model(family, layers)
        rows = [f"{text.format(name)} {secret_of(name)}." for name in NAMES for text in TEMPLATES]
        fit(model, tokenizer([*rows, *SENTENCES])["input_ids"], steps)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return load(Checkpoint(folder), "cpu")
