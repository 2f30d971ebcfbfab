"""Which locator answers which question about a batch, told without loading a model.

A locator shows where a model holds what a batch is about, as a table and a picture. None of them chooses the layers to be
edited: an effect that is large at a layer says little about how well an edit does there (Hase et al. 2023,
arXiv:2301.04213).
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from editors.contract import EditBatch
from editors.errors import ConfigError

AUTO = "auto"
DEFAULTS = {"update": "causal_trace", "forget": "privacy_neurons", "debias": "bias_trace"}
"""What `auto` is, by purpose; of a batch that detoxifies it depends on what is given."""


@dataclass(frozen=True)
class Locator:
    """What a locator is for, in words for people."""

    purposes: tuple[str, ...]
    """Of the batches it can look at."""
    question: str
    """What its evidence answers."""
    caveat: str
    """What its evidence does not show."""


LOCATORS = {
    "causal_trace": Locator(
        ("update",), "at which tokens and layers is today's answer recalled?",
        "A trace explains; it does not choose the layer: edit success hardly follows it (Hase et al. 2023)."),
    "knowledge_neurons": Locator(
        ("update",), "which FFN neurons raise today's answer, in every wording?",
        "An attribution is to a path of the whole network; a neuron that raises this answer may raise many others."),
    "value_reading": Locator(
        ("update", "detoxify", "debias"), "which FFN values promote the words in question?",
        "What a value would promote is read from the weights; nothing here says that a prompt switches it on."),
    "hidden_contrast": Locator(
        ("update", "detoxify"), "at which layers do wanted and present answers part?",
        "States that differ at a layer need not be made there: what a lower layer told apart is carried upwards."),
    "bias_trace": Locator(
        ("debias",), "which modules and heads carry the group to the group word?",
        "The effect is of one module exchanged at a time, in the first template of the first request."),
    "privacy_neurons": Locator(
        ("forget",), "which FFN neurons raise a secret above values of its form?",
        "A neuron that raises a secret is not its place: silenced, others may tell it still."),
}


def locator_of(asked: str, batch: EditBatch) -> str:
    """The locator to run; `auto` is the purpose's own.

    Raises:
        ConfigError: there is no such locator, or it is for other purposes.
    """
    if asked == AUTO:
        shown = any(request.unsafe for request in batch.detoxifies)
        return DEFAULTS.get(batch.purpose) or ("hidden_contrast" if shown else "value_reading")
    if asked not in LOCATORS:
        near = get_close_matches(asked, LOCATORS, 1)
        raise ConfigError(f"locator {asked!r} is unknown", f"--method {near[0] if near else ', '.join(LOCATORS)}")
    if batch.purpose not in LOCATORS[asked].purposes:
        fitting = [name for name, locator in LOCATORS.items() if batch.purpose in locator.purposes]
        raise ConfigError(f"the locator {asked} is not for the purpose {batch.purpose}", f"--method {' or '.join(fitting)}")
    return asked
