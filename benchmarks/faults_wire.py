"""The wire to S3 goes wrong at one request: errors, lost answers, cut connections, silence, and a store that stays away."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from benchmarks.faults_cases import Case, begun_torn, finish, moment, reference, untyped
from benchmarks.faults_commands import Command
from benchmarks.faults_lives import CHANGES, Act
from benchmarks.faults_proxy import ONCE, Wire, Wrong
from benchmarks.faults_world import World

KIND = "wire"
COMMANDS = ("promote", "rollback", "pull", "gc", "inbox in a bucket")
READ_SECONDS = 0.4
PART_BYTES = 5 * 2**20
"""The least that S3 takes as a part."""


def wires(here: World, commands: Mapping[str, Command], *, quick: bool) -> Iterator[Case]:
    """Every case: at a request that only reads one kind of fault, in turn; at one that changes something each."""
    parts = _upload(here)
    for command in (*(commands[name] for name in COMMANDS if name in commands), parts):
        expected = reference(here, command)
        requests = [name.removeprefix("before ") for name in expected.life.boundaries if _is_request(name)]
        chosen = list(_chosen(requests, thorough=command is parts))
        for wrong in chosen[len(chosen) // 2:][:2] if quick else chosen:
            here.restore(command.state)
            life = here.live(_through(here, command.act, wrong))
            wronged = [*untyped(life), *begun_torn(here)]
            if life.ended == "refused" and life.answer == "NotFound":
                wronged.append(f"untyped: a store that fails is told as a missing object: {life.error[:200]}")
            more, seconds = finish(here, command, expected, moment(here))
            yield Case(KIND, command.name, f"{wrong.kind} at {wrong.at} {_named(requests, wrong.at)}", (*wronged, *more),
                       life.cpu_seconds + seconds)


def _chosen(requests: Sequence[str], *, thorough: bool) -> Iterator[Wrong]:
    for at, request in enumerate(requests, 1):
        if thorough or request.startswith(CHANGES):
            yield from (Wrong(at, kind) for kind in ONCE)
        else:
            yield Wrong(at, ONCE[at % len(ONCE)])
        if at % 5 == 1:
            yield Wrong(at, "down")


def _through(here: World, act: Act, wrong: Wrong | None) -> Act:
    """The command with the wire between it and the store; made to be called in a fork."""
    def run() -> Any:
        _impatient(here)
        wire = Wire(urlsplit(here.endpoint.endpoint_url).port or 0, wrong)
        os.environ["SUTURE_ENDPOINT_URL"] = wire.url
        return act()

    return run


def _impatient(here: World) -> None:
    """Short waits, and the server's own address in what the store remembers and tells."""
    from botocore.retries.standard import ExponentialBackoff

    from tasks import store_client
    from tasks.store import Store

    store_client.READ_SECONDS = READ_SECONDS
    ExponentialBackoff.delay_amount = lambda *_: 0.01
    Store._endpoint = property(lambda _: here.endpoint.endpoint_url)  # type: ignore[assignment,method-assign]


def _upload(here: World) -> Command:
    """A blob of three parts, brought and fetched back."""
    source = here.root / "large"
    if not source.exists():
        source.write_bytes(os.urandom(2 * PART_BYTES + 2**20))

    def act() -> Any:
        from flows.house import open_house
        from flows.settings import read_settings
        from tasks import store

        store.PART_BYTES = PART_BYTES
        with open_house(read_settings()) as house:
            receipt = house.store.put_blob(source)
            house.store.get_blob(receipt.digest, here.home / "back")
        return {"digest": receipt.digest}

    return Command("upload in parts", "empty", act, ("digest",))


def _is_request(name: str) -> bool:
    return name.startswith(("before GET", "before HEAD", *(f"before {method}" for method in CHANGES)))


def _named(requests: Sequence[str], at: int) -> str:
    return requests[at - 1] if at <= len(requests) else "past the end"
