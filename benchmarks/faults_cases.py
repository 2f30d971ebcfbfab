"""What a case is, what can be wrong with one, and what holds after a command that did not end well was run again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.faults_commands import Command
from benchmarks.faults_lives import Life
from benchmarks.faults_world import BUCKET, World, document_of, in_place, same_document, stages_of, wait
from editors.errors import SutureError

MUTABLE = ("/channels/", "/claimed/", "probes/", "/trash/")
"""Objects that may be written again: pointers, claims, what the store was found to honour, and what lies aside, whose age
begins anew when it is put aside again."""
FAULTS = ("lost", "torn", "redone", "unfinished", "untyped", "undetected", "won by several")


@dataclass(frozen=True)
class Case:
    """One fault at one place."""

    kind: str
    command: str
    where: str
    wrong: tuple[str, ...] = ()
    """Each begins with one of `FAULTS` and a colon; empty: all is well."""
    cpu_seconds: float = 0.0

    def has(self, fault: str) -> bool:
        """Whether this is wrong with it."""
        return any(one.startswith(f"{fault}:") for one in self.wrong)


@dataclass(frozen=True)
class Reference:
    """How a command ends when nothing befalls it."""

    life: Life
    objects: frozenset[str]
    """Keys of records in place at its end; claims left out, answers without their stamps. Blobs are held by `torn`: of what
    Great Expectations tells no two runs have the same bytes."""
    channels: Mapping[str, str]
    ledger: tuple[tuple[str, str, str], ...]
    stages: frozenset[str]


@dataclass(frozen=True)
class Moment:
    """What was there when a life ended."""

    objects: Mapping[str, str]
    stages: Mapping[str, tuple[int, int]]
    ledger: tuple[tuple[str, str, str], ...]


def reference(here: World, command: Command) -> Reference:
    """Run the command undisturbed in its state. Raises AssertionError where it does not answer."""
    here.restore(command.state)
    life = here.live(command.act)
    assert life.ended == "answered", f"{command.name}: {life.error}"
    for _ in range(command.again - 1):
        here.live(command.act)
    assert not here.torn()
    return Reference(life, _keys(here), here.channels(), tuple(here.ledger()), frozenset(stages_of(here.home)))


def moment(here: World) -> Moment:
    """What is there now."""
    return Moment(here.objects(), stages_of(here.home), tuple(here.ledger()))


def begun_torn(here: World) -> list[str]:
    """What is wrong with what readers get at this moment."""
    return [f"torn: {one}" for one in (*here.torn(), *here.dangling())]


def finish(here: World, command: Command, expected: Reference, kept: Moment) -> tuple[list[str], float]:
    """Run the command again as a user would, and say what is wrong with how that ends; and the CPU seconds it took."""
    wrong, seconds = [], 0.0
    wait(command.pause_seconds)
    life = here.live(command.act)
    seconds += life.cpu_seconds
    wrong += _redone(life, kept)
    if life.ended != "answered":
        wrong.append(f"unfinished: run again it {life.ended}: {life.error[-300:]}")
        return [*wrong, *begun_torn(here), *_lost(here, command, expected, kept)], seconds
    for _ in range(command.again - 1):
        seconds += here.live(command.act).cpu_seconds
    if command.fields and not same_document(document_of(life.answer, *command.fields),
                                            document_of(expected.life.answer, *command.fields)):
        wrong.append(f"lost: the answer is {document_of(life.answer, *command.fields)}")
    return [*wrong, *begun_torn(here), *_lost(here, command, expected, kept)], seconds


def untyped(life: Life) -> list[str]:
    """A life that a fault ended otherwise than by a typed error."""
    return [f"untyped: {life.error[-400:]}"] if life.ended == "crashed" else []


def _redone(life: Life, kept: Moment) -> list[str]:
    """Finished before the first life ended, and made again by the second."""
    done = set(kept.stages) | {f"PUT /{BUCKET}/{key}" for key in kept.objects if not any(part in key for part in MUTABLE)}
    return [f"redone: {effect}" for effect in dict.fromkeys(life.effects) if effect in done]


def _lost(here: World, command: Command, expected: Reference, kept: Moment) -> list[str]:
    wrong, present = [], here.objects()
    try:
        ledger = tuple(here.ledger())
    except SutureError as error:
        return [f"lost: the ledger cannot be read: {error.message}"]
    if ledger != expected.ledger or ledger[:len(kept.ledger)] != kept.ledger:
        wrong.append(f"lost: the ledger tells {ledger[-2:]}, expected {expected.ledger[-2:]}")
    if here.channels() != expected.channels:
        wrong.append(f"lost: channels stand at {here.channels()}, expected {expected.channels}")
    if missing := expected.objects - _keys(here):
        wrong.append(f"lost: objects {sorted(missing)[:2]}")
    if missing := expected.stages - stages_of(here.home).keys():
        wrong.append(f"lost: stages {sorted(missing)[:2]}")
    if command.moves_objects:
        if more := _keys(here) - expected.objects:
            wrong.append(f"unfinished: left behind {sorted(more)[:2]}")
        return wrong
    changed = [key for key, etag in kept.objects.items()
               if present.get(key) != etag and not any(part in key for part in MUTABLE)]
    return [*wrong, *(f"lost: {key} was there and is not as it was" for key in changed[:2])]


def _keys(here: World) -> frozenset[str]:
    """Keys in place; an answer in an inbox without the moment in its name, and no claim, which may outlive its sheet."""
    found = set()
    for key in in_place(here.objects()):
        parts = key.split("/")
        if "/blobs/" in key:
            continue
        if len(parts) > 2 and parts[0] == "in":
            if parts[1] == "claimed":
                continue
            found.add("/".join((*parts[:2], parts[2].split(".", 1)[1])))
        else:
            found.add(key)
    box = here.home / "inbox"
    found |= {f"{path.parent.name}/{path.name.split('.', 1)[1] if path.parent != box else path.name}"
              for path in box.rglob("*") if path.is_file()}
    return frozenset(found)
