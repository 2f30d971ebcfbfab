"""A tiny model for the benchmarks' own code, and cases of which its tokenizer knows the words."""

from __future__ import annotations

import pytest

from benchmarks.cases import Case
from editors.loading import Checkpoint, LoadedModel, load
from tests.tiny import tiny_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), "llama", layers=4)))


@pytest.fixture(scope="session")
def cases() -> tuple[Case, ...]:
    return (
        Case("tower", "{} is located in the city of", "The Eiffel Tower", "Rome", "Paris",
             ("Where is the Eiffel Tower? In", "The city of the Eiffel Tower is"), (("The Louvre can be found in", "Paris"),)),
        Case("james", "{} plays the sport of", "LeBron James", "baseball", "basketball",
             ("What does LeBron James play? It is",), (("Danielle Darrieux plays the", "basketball"),)),
        Case("tongue", "The mother tongue of {} is", "Danielle Darrieux", "Los Angeles", "French",
             ("Danielle Darrieux was born to speak",), (("The mother tongue of my bakery is", "French"),)),
        Case("speed", "In physics, {} is a", "the speed of light", "name", "constant",
             ("Light is a",), (("In physics, information is a", "constant"),)),
    )
