"""One bit turned in everything that lies at rest, on this machine and in the store, before something reads it.

What is read must be as it was, or be made again, or end the command by a typed error that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.faults_cases import Case, begun_torn, untyped
from benchmarks.faults_commands import Command, promote, pull, rollback
from benchmarks.faults_lives import Life, Plan
from benchmarks.faults_world import MODEL, World, document_of, flip, in_place, places, same_document
from editors.errors import SutureError

LOCAL, REMOTE = "rot at home", "rot in the store"
MADE = "made"
RESULT = ("version", "state", "checkpoint", "patch_digests", "passed", "verdict")
PLACES, RECORD_PLACES = 1, 3
Step = Callable[[], Any]


def rot(here: World, commands: Mapping[str, Command], *, quick: bool) -> Iterator[Case]:
    """Every case, first at home."""
    yield from rot_at_home(here, commands["edit on top"], quick=quick)
    yield from rot_in_store(here, commands["promote"], quick=quick)


def rot_at_home(here: World, command: Command, *, quick: bool) -> Iterator[Case]:
    """Files that an edit left when it was killed before it was registered; the same edit reads them again."""
    here.restore(command.state)
    passed = here.live(command.act).boundaries
    here.restore(command.state)
    at = next(number for number, name in enumerate(passed, 1) if name.startswith("before PUT") and "/candidates/" in name)
    here.live(command.act, Plan(at))
    here.save(MADE)
    expected = _result(here.live(command.act))
    for file in _few(_files(here), quick):
        body = (here.states[MADE].home / file).read_bytes()
        for place in places(body, _steady(file), 1 if quick else _count(file.name)):
            here.restore(MADE)
            (here.home / file).write_bytes(flip(body, place))
            life = here.live(command.act)
            wrong = [*untyped(life), *begun_torn(here)]
            if life.ended == "answered" and not same_document(_result(life), expected):
                wrong.append(f"undetected: the answer is {_difference(_result(life), expected)}")
            if life.ended == "refused" and not _names(life.error, file.name, file.parent.name):
                wrong.append(f"undetected: refused without its name: {life.error[:300]}")
            yield Case(LOCAL, command.name, f"{file} byte {place}", tuple(wrong), life.cpu_seconds)


def rot_in_store(here: World, command: Command, *, quick: bool) -> Iterator[Case]:
    """Objects of a store with two releases and an approved candidate; every command that reads them looks at them."""
    here.restore(command.state)
    steps = _steps(here)
    expected = here.live(lambda: _audit(steps)).answer
    objects = here.states[command.state].objects
    for key in _few(sorted(key for key in in_place(dict.fromkeys(objects, "")) if key.startswith("w/")), quick):
        body = objects[key][0]
        for place in places(body, _steady(Path(key)), 1 if quick else _count(key)):
            here.restore(command.state)
            here.put(key, flip(body, place))
            life = here.live(lambda: _audit(steps))
            yield Case(REMOTE, "every reader", f"{key} byte {place}", tuple(_judged(life, expected, key)), life.cpu_seconds)


def _steps(here: World) -> dict[str, Step]:
    def look(version: str | None) -> Step:
        def act() -> Any:
            from flows.house import open_house
            from flows.settings import read_settings
            from tasks import channel as channels
            from tasks.verify import fetch

            with open_house(read_settings()) as house:
                state = channels.read(house.store, MODEL, "demo")
                contents = channels.read_version(house.store, MODEL, version) if version else state and state.manifest
                return [one.model_dump() for one in fetch(contents, here.home / "looked" / (version or "served"), house)]
        return act

    def shown(version: str) -> Step:
        def act() -> Any:
            from flows.release import show
            from flows.settings import read_settings

            return document_of(show(read_settings(), version), "digest", "state", "checkpoint", "requests", "places", "parent")
        return act

    def told() -> Any:
        from flows.release import history
        from flows.settings import read_settings

        return history(read_settings(), "demo", None)

    def collected() -> Any:
        from flows.keeping import collect
        from flows.settings import read_settings

        return len(collect(read_settings(), 30.0, 24.0, dry_run=True)["rows"])

    pending = sorted(key.split("/")[-1][:12] for key in here.objects() if "/candidates/" in key)
    served = set(here.channels().values())
    waiting = [version for version in pending if not here.line.exists(f"models/{MODEL}/releases/{version}.json")]
    return {
        "pull": pull(here, "demo"), "history": told, "look at the served": look(None),
        **{f"look at {version}": look(version) for version in pending if version not in served},
        **{f"show {version}": shown(version) for version in pending}, "gc": collected,
        **{f"promote {version}": _part(promote(version), "version", "previous", "sequence") for version in waiting},
        "rollback": _part(rollback("demo"), "version", "left", "sequence", "digests"),
        "pull after it": pull(here, "demo", "rolled"),
        "rollback to the base": _part(rollback("demo"), "version", "left", "sequence", "digests"),
        "pull the base": pull(here, "demo", "base"),
        "history after it": lambda: [entry["to"] for entry in told()["entries"]],
    }


def _part(act: Step, *names: str) -> Step:
    return lambda: document_of(act(), *names)


def _audit(steps: Mapping[str, Step]) -> dict[str, Any]:
    """What each step answers; a typed error is an answer."""
    told: dict[str, Any] = {}
    for name, act in steps.items():
        try:
            told[name] = act()
        except SutureError as error:
            told[name] = {"refused": type(error).__name__, "message": error.message, "hint": error.hint}
        except Exception as error:  # whatever else comes out is what is looked for
            told[name] = {"crashed": f"{type(error).__name__}: {error}"}
    return told


def _judged(life: Life, expected: Mapping[str, Any], key: str) -> Iterator[str]:
    if life.ended != "answered":
        yield f"untyped: {life.error[-300:]}"
        return
    named, stopped = False, False
    for step, told in life.answer.items():
        refused = told if isinstance(told, dict) else {}
        if "crashed" in refused:
            yield f"untyped: {step}: {refused['crashed'][:300]}"
        elif "refused" in refused:
            stopped = True
            # an entry of the ledger is held by the one behind it, which is then named, or by the pointer
            named |= _names(refused["message"], key, "/ledger/" if "/ledger/" in key else key, Path(key).stem)
        elif isinstance(told, list) and told and isinstance(told[0], dict) and "problem" in told[0]:
            named = True
        elif not stopped and not same_document(told, expected[step]):
            yield f"undetected: {step} says {_difference(told, expected[step])}"
    if not named:
        yield "undetected: no reader names it"


def _names(message: str, *words: str) -> bool:
    return any(word in message or (len(word) == 64 and word[:12] in message) for word in words)


def _result(life: Life) -> dict[str, Any]:
    return document_of(life.answer, *RESULT) if life.ended == "answered" else {"ended": life.error}


def _difference(found: Any, expected: Any) -> str:
    if isinstance(found, dict) and isinstance(expected, dict):
        return str({name: found[name] for name in found if found[name] != expected.get(name)})[:300]
    return str(found)[:300]


def _files(here: World) -> list[Path]:
    """The files of finished work and of caches, each inode once."""
    seen, found = set(), []
    home = here.states[MADE].home
    for folder in ("work", "cache"):
        for path in sorted((home / folder).rglob("*")):
            if path.is_file() and (inode := path.stat().st_ino) not in seen:
                seen.add(inode)
                found.append(path.relative_to(home))
    return found


def _steady(path: Path) -> str:
    """A name for a file that is the same in every run, though digests may not be."""
    return path.name


def _count(key: str) -> int:
    """Records have more places that are read each by its own code."""
    return RECORD_PLACES if key.endswith(".json") else PLACES


def _few(found: list[Any], quick: bool) -> list[Any]:
    return found[:: max(1, len(found) // 2)] if quick else found
