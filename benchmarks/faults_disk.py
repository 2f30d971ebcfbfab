"""The disk under the home is full from some boundary on; with room again the same command finishes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.faults_cases import Case, begun_torn, finish, moment, reference, untyped
from benchmarks.faults_commands import Command
from benchmarks.faults_kills import boundaries
from benchmarks.faults_lives import Plan
from benchmarks.faults_world import World

KIND = "full disk"
COMMANDS = ("edit", "pull", "remove")
SIZE = "96m"
EVERY = 4


def full_disks(here: World, commands: Mapping[str, Command], *, quick: bool) -> Iterator[Case]:
    """Every case; none where nobody may mount a small disk."""
    with _small_disk(here.home) as mounted:
        if not mounted:
            return
        for command in (commands[name] for name in COMMANDS if name in commands):
            expected = reference(here, command)
            places = [at for at in boundaries(command, expected.life.boundaries)
                      if not expected.life.boundaries[at - 1].startswith(("before GET", "before HEAD", "after PUT"))][::EVERY]
            for at in places[len(places) // 2:][:1] if quick else places:
                yield _case(here, command, expected, at)


def _case(here: World, command: Command, expected: object, at: int) -> Case:
    here.restore(command.state)
    ballast = here.home / "ballast"
    life = here.live(command.act, Plan(at, befall=lambda: _fill(ballast)))
    ballast.unlink(missing_ok=True)
    where = life.boundaries[at - 1] if len(life.boundaries) >= at else "past the end"
    wrong = [*untyped(life), *begun_torn(here)]
    more, seconds = finish(here, command, expected, moment(here))  # type: ignore[arg-type]
    return Case(KIND, command.name, f"{at} {where}", (*wrong, *more), life.cpu_seconds + seconds)


def _fill(ballast: Path) -> None:
    """Take all that is left."""
    with suppress(OSError), ballast.open("wb", buffering=0) as stream:
        for size in (2**20, 2**12, 1):
            with suppress(OSError):
                while True:
                    stream.write(b"\0" * size)


@contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    """A file system of its own in place of the home, inside the block; False where only root may mount one."""
    shutil.rmtree(folder)
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0  # noqa: S603
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)  # noqa: S603, S607
