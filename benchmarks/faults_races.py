"""Eight processes at the same moment on one channel: one wins, the others are told who, the ledger tells every move once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.faults_cases import Case, begun_torn
from benchmarks.faults_commands import Command, promote, rivals, rollback
from benchmarks.faults_lives import Act, Life, together
from benchmarks.faults_world import World

KIND = "race"
RACERS, ROUNDS = 8, 4
LOST = ("PromotionConflict", "PointerMoved")


def races(here: World, commands: Mapping[str, Command], *, quick: bool) -> Iterator[Case]:
    """Every race, some rounds of each."""
    here.restore(commands["promote"].state)
    versions = rivals(here, RACERS)
    here.save("rivals")
    for number in range(1 if quick else ROUNDS):
        here.restore("rivals")
        before = len(here.ledger())
        lives = _run(here, [promote(version) for version in versions])
        yield Case(KIND, "8 promotions", f"round {number}", tuple(_one_won(here, lives, versions, before)))
        here.restore("rivals")
        lives = _run(here, [promote(versions[0])] * RACERS)
        yield Case(KIND, "8 times one promotion", f"round {number}", tuple(_all_agree(here, lives, versions[0], before)))
        here.restore("rivals")
        lives = _run(here, [rollback("demo")] * RACERS)
        yield Case(KIND, "8 rollbacks", f"round {number}", tuple(_sound(here, lives)))
        here.restore("two")
        lives = _run(here, [commands["inbox in a bucket"].act] * RACERS)
        yield Case(KIND, "8 workers of an inbox", f"round {number}", tuple(_taken_once(here, lives)))


def _run(here: World, acts: list[Act]) -> list[Life]:
    return together(acts, here.root / "race")


def _one_won(here: World, lives: Sequence[Life], versions: Sequence[str], before: int) -> Iterator[str]:
    yield from _sound(here, lives)
    winners = [version for version, life in zip(versions, lives, strict=True) if life.ended == "answered"]
    if len(winners) != 1:
        yield f"won by several: {len(winners)} promotions were told that they won"
    elif here.channels().get("race") != winners[0]:
        yield f"lost: {winners[0]} won, and the channel stands at {here.channels().get('race')}"
    moves = [version for kind, channel, version in here.ledger()[before:] if channel == "race" and kind == "promote"]
    if moves != winners:
        yield f"lost: the ledger tells of {moves}, {winners} won"


def _all_agree(here: World, lives: Sequence[Life], version: str, before: int) -> Iterator[str]:
    yield from _sound(here, lives)
    if not all(life.ended == "answered" for life in lives):
        yield f"unfinished: {[life.error[:100] for life in lives if life.ended != 'answered'][:2]}"
    if [kind for kind, channel, _ in here.ledger()[before:] if channel == "race"] != ["open", "promote"]:
        yield f"redone: the ledger tells {here.ledger()[before:]}"
    if here.channels().get("race") != version:
        yield "lost: the channel does not stand at the version"


def _taken_once(here: World, lives: Sequence[Life]) -> Iterator[str]:
    yield from _sound(here, lives)
    done = [name for life in lives if life.ended == "answered" for name in life.answer["done"]]
    if len(done) != 1:
        yield f"{'lost' if not done else 'won by several'}: {len(done)} workers finished the sheet"


def _sound(here: World, lives: Sequence[Life]) -> Iterator[str]:
    yield from begun_torn(here)
    for life in lives:
        if life.ended == "crashed":
            yield f"untyped: {life.error[-300:]}"
        elif life.ended == "refused" and life.answer not in LOST:
            yield f"unfinished: {life.answer}: {life.error[:200]}"
