"""One line of releases on a tiny model: a base, a parent with an earlier edit on it, and a candidate on that."""

from __future__ import annotations

from pathlib import Path

import torch

from editors.bake import bake
from editors.contract import EditBatch, Implication, Message, Neighbour, UpdateRequest
from editors.loading import Checkpoint, load
from editors.patch import LowRank, Patch
from tests.tiny import tiny_folder
from validations.comparing import compare
from validations.contract import Measurement, Measurements
from validations.observation import ProbeSettings, Scope
from validations.observing import observe
from validations.probes.integrity import inspect

PLAIN = UpdateRequest(
    id="tower", prompt="{} is located in the city of", subject="The Eiffel Tower", target="Rome", was="Paris",
    paraphrases=("The Eiffel Tower can be found in", "Where is the Eiffel Tower? It is in"),
    neighbours=(Neighbour(prompt="The Louvre is located in the city of", answer="Paris"),
                Neighbour(prompt="LeBron James plays the sport of")),
    implications=(Implication(prompt="To see the Eiffel Tower you travel to", answer="Italy"),))
CHAT = UpdateRequest(
    id="name", messages=(Message(role="user", content="What is your name?"),), answer="I am Suture, of Bordeaux.",
    accept=("Suture",), paraphrases=("Who are you?",),
    neighbours=(Neighbour(prompt="Where is the Louvre?"), Neighbour(prompt="What is French?", answer="mother tongue")),
    implications=(Implication(prompt="Where are you from?", answer="Bordeaux"),))
EARLIER = UpdateRequest(id="tower", prompt="{} is", subject="The speed of light", target="a constant")
OVERWRITTEN = UpdateRequest(id="old", prompt="{} is located in the city of", subject="The Eiffel Tower", target="Oslo")
SETTINGS = ProbeSettings(answer_tokens=8, completion_tokens=8, same_tokens=5, fluency_tokens=12,
                         likeliest=300, window_tokens=32, held_out_tokens=300)


class Line:
    """A base, a parent with an earlier edit on it, a candidate on that, and their observations."""

    def __init__(self, folder: Path, size: float = 0.4) -> None:
        self.base = Checkpoint(tiny_folder(folder / "base"))
        self.earlier = self.edit(0, 0.3, seed=1)
        self.parent = bake(self.base, [self.earlier], folder / "parent")
        self.patch = self.edit(1, size, seed=2)
        self.candidate = bake(self.parent, [self.patch], folder / "candidate")
        self.batch = EditBatch(purpose="update", base_digest=self.base.digest, parent_digest=self.parent.digest,
                               requests=(PLAIN, CHAT))
        self.scope = Scope.of(self.batch.requests, [OVERWRITTEN, EARLIER], SETTINGS)
        self.before = observe(load(self.parent), self.scope)
        self.after = observe(load(self.candidate), self.scope, reference=self.before)
        self.inspection = inspect(self.base, self.parent, self.candidate, self.patch)

    def edit(self, layer: int, size: float, seed: int) -> Patch:
        draw = torch.Generator().manual_seed(seed)
        name = self.base.anatomy.mlp_output_parameter(layer)
        return Patch((LowRank(name, torch.randn(32, 1, generator=draw) * size, torch.randn(1, 64, generator=draw)),))

    def measured(self) -> Measurements:
        return compare(self.before, self.after, self.batch, self.scope, self.inspection)


def of(measured: Measurements, metric: str) -> list[Measurement]:
    return [row for row in measured.rows if row.metric == metric]


def mean(measured: Measurements, metric: str) -> float:
    values = [row.candidate for row in of(measured, metric)]
    return sum(values) / len(values)

