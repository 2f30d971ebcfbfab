"""SIGKILL at the boundaries of every command, then the same command again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.faults_cases import Case, Reference, begun_torn, finish, moment, reference
from benchmarks.faults_commands import Command
from benchmarks.faults_lives import Plan
from benchmarks.faults_world import World

KIND = "kill"
LONG = ("edit", "edit on top", "remove")
"""Commands of some hundred boundaries: killed once for each state that the world can be in."""
IDLE = re.compile(r"before (GET|HEAD|the work)|(before|after) rmtree (\.|tmp)|before (?!a commit)")
COMMIT = "commit of the registry"


def kills(here: World, commands: Mapping[str, Command], *, quick: bool) -> Iterator[Case]:
    """Every case, one after another."""
    for command in commands.values():
        expected = reference(here, command)
        places = boundaries(command, expected.life.boundaries)
        for at in (_few(places) if quick else places):
            yield kill(here, command, expected, at)


def boundaries(command: Command, passed: Sequence[str]) -> list[int]:
    """Where to kill: at each boundary; in a long command at one for each state.

    The state changes only between `before` and `after` the same thing, so `after` stands for all up to the next change.
    The registry's commits are killed in the first edit alone: they are the same code in all.
    """
    every = list(range(1, len(passed) + 1))
    if command.name not in LONG:
        return every
    return [1, *(at for at in every if not IDLE.match(passed[at - 1])
                 and (command.name == "edit" or COMMIT not in passed[at - 1]))]


def kill(here: World, command: Command, expected: Reference, at: int) -> Case:
    """One life that ends at a boundary, and the one that finishes."""
    here.restore(command.state)
    life = here.live(command.act, Plan(at))
    where = life.boundaries[at - 1] if len(life.boundaries) >= at else "past the end"
    wrong = begun_torn(here)
    if life.ended == "crashed":
        wrong.append(f"untyped: {life.error[-300:]}")
    more, seconds = finish(here, command, expected, moment(here))
    return Case(KIND, command.name, f"{at} {where}", (*wrong, *more), life.cpu_seconds + seconds)


def _few(places: Sequence[int]) -> list[int]:
    return [places[len(places) // 2]] if places else []
