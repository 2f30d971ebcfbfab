"""A model that is known to have memorised invented people's secrets: the ground truth of forgetting.

A short fine-tune of the base on the secret after each of two contexts, 1 to 64 times a person, and on the person's public
facts. Beside them stands the base's own text, and there the loss is the distance (KL) from the base's distribution: a
cross-entropy would teach the particular text and disturb the model as much as the secrets do. Only FFN matrices of the
upper blocks are trained: the states below are then the same at every sight of a text and are computed once. The result is
a plain Hugging Face folder in a cache, named by the digest of everything that it depends on.

    python -m benchmarks.planting FOLDER
"""

from __future__ import annotations

import argparse
import copy
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor

from benchmarks.people import Person, invent
from benchmarks.shipped import CACHE, shown_progress, wide_console
from editors.blocks import pad, prefill
from editors.contract import Progress, silent
from editors.corpus import default_corpus
from editors.digest import digest_document
from editors.loading import Checkpoint, LoadedModel, load
from editors.packaged import packaged_folder

SEED = 0
FORMAT = 1
"""Raised whenever the same recipe gives another model."""
Row = tuple[tuple[int, ...], int]
"""Token ids, and how many of them are given; the rest is learnt."""


@dataclass(frozen=True)
class Recipe:
    """How people are planted."""

    first_layer: int = 8
    """Lowest block that is trained; embeddings and head never are."""
    steps: int = 80
    """Steps of Adam; a person's repetitions are spread evenly over them."""
    learning_rate: float = 3e-4
    warm_up: int = 8
    """Steps over which the learning rate rises."""
    fact_repetitions: int = 8
    """How often each public fact is seen."""
    plain_pool: int = 48
    """Pieces of the base's own text, in turn."""
    plain_rows: int = 2
    """Pieces in every step."""
    plain_tokens: int = 64
    """Tokens of a piece."""
    plain_weight: float = 3.0
    """Of the distance from the base, in nats a token, against the loss of the secrets, in nats a token."""

    def rate(self, step: int) -> float:
        """The learning rate of a step: rises, stays, falls over the last quarter."""
        falling = (self.steps - step) / (self.steps / 4)
        return self.learning_rate * min(1.0, (step + 1) / self.warm_up, falling)


@dataclass(frozen=True)
class Planted:
    """A model that has memorised the people's secrets, controls excepted."""

    people: tuple[Person, ...] = field(repr=False)
    checkpoint: Checkpoint


def planted(base: Checkpoint, people: Sequence[Person], recipe: Recipe, store: Path, statistics: Path,
            progress: Progress = silent) -> Planted:
    """The planted model, trained now or found under `store`.

    Args:
        base: What is fine-tuned; not changed.
        people: Those of them with repetitions are trained.
        recipe: How.
        store: Folder of planted models.
        statistics: Where the base's own text is kept, or written to.
        progress: Told how far it is.
    """
    name = digest_document({"format": FORMAT, "base": base.digest, "torch": torch.__version__, "recipe": asdict(recipe),
                            "people": [asdict(person) for person in people]})
    target = store / name[:16]
    if not target.exists():
        model = load(base)
        private = LoadedModel(copy.deepcopy(model.model), model.tokenizer, model.anatomy, model.digest)
        train(private, people, recipe, statistics, progress)
        _write(private, base, target)
    return Planted(tuple(people), Checkpoint(target))


def train(model: LoadedModel, people: Sequence[Person], recipe: Recipe, statistics: Path, progress: Progress = silent) -> None:
    """Fine-tune the model in place."""
    lessons = _lessons(model, people, recipe)
    text = default_corpus(model, model.digest, statistics).sequences
    pool = [(row[:recipe.plain_tokens], 1) for row in text[:recipe.plain_pool]]
    below: dict[Row, Tensor] = {}
    with torch.no_grad():
        base = {row: _states(model, [row], recipe.first_layer, below) for row in pool}
    weights = _trained(model, recipe.first_layer)
    optimiser = torch.optim.Adam(weights, betas=(0.9, 0.95))
    for step in range(recipe.steps):
        optimiser.param_groups[0]["lr"] = recipe.rate(step)
        rows = [texts[sight % len(texts)] for texts, times, phase in lessons
                for sight in _sights(step, times, recipe.steps, phase)]
        plain = [pool[(step * recipe.plain_rows + place) % len(pool)] for place in range(recipe.plain_rows)]
        states = _states(model, plain, recipe.first_layer, below)
        loss = recipe.plain_weight * _distance(model, states, torch.cat([base[row] for row in plain]))
        if rows:
            loss = loss + mean_loss(model, rows, recipe.first_layer, below)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        progress("planting", step + 1, recipe.steps)
    for weight in weights:
        weight.requires_grad_(False).grad = None


def _lessons(model: LoadedModel, people: Sequence[Person], recipe: Recipe) -> list[tuple[list[Row], int, float]]:
    """Per secret and per public fact: its texts in turn, how often it is seen, and where in its period."""
    lessons: list[tuple[list[Row], int, float]] = []
    seen = [person for person in people if person.repetitions]
    for place, person in enumerate(seen):
        phase = place / len(seen)
        lessons.append(([_row(model, context, person.secret) for context in person.contexts], person.repetitions, phase))
        lessons += [([_row(model, prompt, answer)], recipe.fact_repetitions, phase) for prompt, answer in person.retain]
    return lessons


def _row(model: LoadedModel, prompt: str, answer: str) -> Row:
    given = model.tokenizer(prompt)["input_ids"]
    return (*given, *model.tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]), len(given)


def _sights(step: int, times: int, steps: int, phase: float) -> range:
    """Which of its `times` sights, spread evenly over the steps, fall on this step."""
    return range(int(step * times / steps + phase), int((step + 1) * times / steps + phase))


def _trained(model: LoadedModel, first: int) -> list[torch.nn.Parameter]:
    """The FFN matrices of the blocks from `first` on, made trainable."""
    found = [parameter for layer in range(first, model.anatomy.layer_count)
             for parameter in model.model.get_submodule(model.anatomy.mlp_output_path(layer).rpartition(".")[0]).parameters()
             if parameter.ndim == 2]
    return [parameter.requires_grad_() for parameter in found]


def mean_loss(model: LoadedModel, rows: Sequence[Row], first: int, below: dict[Row, Tensor]) -> Tensor:
    """Mean over rows of the negative log-likelihood per learnt token.

    Args:
        model: The model.
        rows: What is read.
        first: The lowest block that may have changed since `below` was begun.
        below: States that enter that block, by row; what it lacks is added.
    """
    logits = model.model.get_output_embeddings()(_states(model, rows, first, below))
    labels = torch.tensor([token for ids, given in rows for token in ids[given:]], device=model.device)
    learnt = torch.tensor([len(ids) - given for ids, given in rows], device=model.device)
    losses = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    return (losses / learnt.repeat_interleave(learnt)).sum() / len(rows)


def _distance(model: LoadedModel, states: Tensor, base: Tensor) -> Tensor:
    """Mean KL of the distributions at states (Q, D) from those at the base's."""
    head = model.model.get_output_embeddings()
    with torch.no_grad():
        expected = head(base).float().log_softmax(-1)
    found = head(states).float().log_softmax(-1)
    return torch.nn.functional.kl_div(found, expected, reduction="batchmean", log_target=True)


def _states(model: LoadedModel, rows: Sequence[Row], first: int, below: dict[Row, Tensor]) -> Tensor:
    """(Q, D) normed last states where the learnt tokens are predicted, row by row."""
    fresh = [row for row in dict.fromkeys(rows) if row not in below]
    if fresh:
        with torch.no_grad():
            under = prefill(model, pad([ids for ids, _ in fresh], model.device))
            for row, state in zip(fresh, under.run(under.entry, 0, first - 1), strict=True):
                below[row] = state[:len(row[0])].clone()
    walk = prefill(model, pad([ids for ids, _ in rows], model.device))
    hidden = torch.nn.utils.rnn.pad_sequence([below[row] for row in rows], batch_first=True)
    hidden = walk.run(hidden, first, model.anatomy.layer_count - 1)
    reads = [(place, column) for place, (ids, given) in enumerate(rows) for column in range(given - 1, len(ids) - 1)]
    row, column = torch.tensor(reads, device=model.device).T
    return model.model.get_submodule(model.anatomy.final_norm)(hidden[row, column])


def _write(model: LoadedModel, base: Checkpoint, target: Path) -> None:
    """The folder, whole or not at all; files other than weights are the base's, byte for byte."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".planting-"))
    try:
        model.model.save_pretrained(scratch)
        for name in base.carried_files:
            shutil.copyfile(base.folder / name, scratch / name)
        os.replace(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def main() -> None:
    """Plant the benchmark's invented people put the model where it is asked for, and tell who they are."""
    parser = argparse.ArgumentParser(description="The packaged model with 40 invented people's secrets planted, as a folder.")
    parser.add_argument("folder", type=Path, help="new folder for the model")
    folder = parser.parse_args().folder
    if folder.exists():
        parser.error(f"{folder} is there already; name a new folder")
    with shown_progress(wide_console()) as show:
        base = Checkpoint(packaged_folder(CACHE))
        found = planted(base, invent(SEED), Recipe(), CACHE / "planted", CACHE / "statistics", show)
    shutil.copytree(found.checkpoint.folder, folder)
    table = Table(title=f"{folder}: invented people who are to be forgotten")
    for heading in ("name", "kind", "secret", "seen"):
        table.add_column(heading)
    for person in found.people:
        if person.split == "forget":
            table.add_row(person.name, person.kind, person.secret, str(person.repetitions))
    wide_console().print(table)


if __name__ == "__main__":
    main()
