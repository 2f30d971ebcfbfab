"""The product's commands as functions of nothing, for lives in a `World`, and the states that they begin in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from benchmarks.faults_lives import Act
from benchmarks.faults_world import BUCKET, INBOX, World, inbox_store

APPROVER = "ann"
LEASE_SECONDS = 0.3
INBOX_SHEET = "asked.yaml"
"""Asks again for what the channel serves, so that a claim is carried out in a moment."""


@dataclass(frozen=True)
class Command:
    """A command with the state that it begins in and what of its answer must be the same whenever it finishes."""

    name: str
    state: str
    act: Act
    fields: tuple[str, ...] = ("version", "channel", "state")
    again: int = 1
    """How often it is run after a kill until all its work is done."""
    pause_seconds: float = 0.0
    """How long a user waits after a kill: a lease must run out."""
    moves_objects: bool = False
    """Whether it takes away what lay in the store: then its end alone is compared."""


def edit(here: World, name: str) -> Act:
    """`suture edit SHEET`."""
    sheet = str(here.home / f"{name}.yaml")

    def act() -> Any:
        from flows.edit import edit as flow

        return flow(sheet)

    return act


def promote(version: str) -> Act:
    """`suture promote VERSION`."""
    def act() -> Any:
        from flows.promote import promote as flow

        return flow(version, APPROVER, "looked at it")

    return act


def rollback(channel: str, to: str | None = None) -> Act:
    """`suture rollback CHANNEL`."""
    def act() -> Any:
        from flows.rollback import rollback as flow

        return flow(channel, to, "bob", "it answers oddly")

    return act


def remove(here: World, version: str) -> Act:
    """`suture remove VERSION --from demo`."""
    policy = str(here.home / "removal.yaml")

    def act() -> Any:
        from flows.remove import remove as flow

        return flow(version, "demo", policy, "it was wrong")

    return act


def approve(version: str) -> Act:
    """`suture approve VERSION`."""
    def act() -> Any:
        from flows.release import approve as write
        from flows.settings import read_settings

        return write(read_settings(), version, APPROVER, "looked at it", refuse=False)

    return act


def pull(here: World, channel: str, name: str = "pulled") -> Act:
    """`suture pull CHANNEL DIR`; beside the answer, the digest of what arrived."""
    folder = here.home / name / "model"

    def act() -> Any:
        from editors.loading import Checkpoint
        from flows.release import pull as bring
        from flows.settings import read_settings

        # whoever runs it again after a kill that came too late to matter gives a new folder
        target = folder if not folder.exists() else folder.with_name("model-2")
        told = bring(read_settings(), target, None, channel, None, None, None)
        return {**told, "folder": "", "found": Checkpoint(target).digest}

    return act


def collect_later() -> Any:
    """`suture gc` a year from now."""
    from flows.keeping import collect
    from flows.settings import read_settings
    from tasks.store import Store

    clock = Store.clock
    Store.clock = lambda self: clock(self) + timedelta(days=400)  # type: ignore[method-assign]
    told = collect(read_settings(), 30.0, 24.0, dry_run=False)
    return {name: told[name] for name in ("kept_objects",)}


def inbox(here: World, in_bucket: bool) -> Act:
    """`suture inbox PLACE` with a lease that runs out in a moment."""
    place = f"s3://{BUCKET}/{INBOX}" if in_bucket else str(here.home / "inbox")

    def act() -> Any:
        from flows.edit import edit as flow
        from flows.house import open_house
        from flows.inbox import open_inbox, work_through
        from flows.settings import read_settings
        from tasks.inbox import Terms

        terms = Terms(lease_seconds=LEASE_SECONDS, settle_seconds=0)
        with open_house(read_settings()) as house:
            # signs of life as seldom as in a real inbox: one would come at another boundary in every run
            told = work_through(open_inbox(place, house, terms), flow, 100, Terms(settle_seconds=0))
        return {"done": [one["sheet"] for one in told["done"]], "refused": told["refused"], "left": told["left"]}

    return act


def lay_out(here: World) -> dict[str, str]:
    """Make the states that commands begin in; returns versions by name. Raises AssertionError where one cannot be made."""
    from tasks.register import prepare

    versions: dict[str, str] = {}

    def done(act: Callable[[], Any]) -> dict[str, Any]:
        life = here.live(act)
        assert life.ended == "answered", life.error
        return dict(life.answer)

    here.sheet("first", 0, "light")
    mlflow = here.home / "mlflow"
    here.live(lambda: prepare(f"sqlite:///{mlflow / 'mlflow.db'}", (mlflow / "artifacts").as_uri()))
    here.line.probe_conditional_writes()
    here.save("empty")
    versions["first"] = done(edit(here, "first"))["version"]
    here.sheet("second", 1, "physics")
    here.save("one")
    versions["second"] = done(edit(here, "second"))["version"]
    (here.home / "inbox").mkdir()
    (here.home / "inbox" / INBOX_SHEET).write_bytes((here.home / "second.yaml").read_bytes())
    inbox_store(here).probe_conditional_writes()
    inbox_store(here).put_new(INBOX_SHEET, (here.home / "second.yaml").read_bytes())
    here.save("two")
    here.sheet("third", 2, "theatre", channel="stable")
    versions["third"] = done(edit(here, "third"))["version"]
    here.save("pending")
    done(approve(versions["third"]))
    here.save("approved")
    here.restore("two")
    _litter(here)
    here.save("littered")
    return versions


def commands(here: World, versions: dict[str, str]) -> dict[str, Command]:
    """Every command that changes anything, by name."""
    made = (
        Command("edit", "empty", edit(here, "first")),
        Command("edit on top", "one", edit(here, "second")),
        Command("approve", "pending", approve(versions["third"]), ("version", "decision", "by")),
        Command("promote", "approved", promote(versions["third"]), ("version", "channel")),
        Command("rollback", "two", rollback("demo", versions["first"]), ("version", "channel", "digests")),
        Command("rollback one back", "two", rollback("demo"), ("version", "channel", "digests")),
        Command("remove", "two", remove(here, versions["first"])),
        Command("gc", "littered", collect_later, (), again=2, moves_objects=True),
        Command("inbox in a folder", "two", inbox(here, in_bucket=False), (), pause_seconds=LEASE_SECONDS + 0.1,
                moves_objects=True),
        Command("inbox in a bucket", "two", inbox(here, in_bucket=True), (), pause_seconds=LEASE_SECONDS + 0.1,
                moves_objects=True),
        Command("pull", "two", pull(here, "demo"), ("version", "digest", "found")),
    )
    return {command.name: command for command in made}


def rivals(here: World, count: int) -> list[str]:
    """So many approved versions of one parent on the channel `race`, none of them promoted."""
    found = []
    for number in range(count):
        here.sheet(f"rival-{number}", number % 3, ("sugar", "winter", "music", "horses")[number // 3 % 4], channel="race")
        told = here.live(edit(here, f"rival-{number}"))
        assert told.ended == "answered", told.error
        found.append(told.answer["version"])
        decided = here.live(approve(found[-1]))
        assert decided.ended == "answered", decided.error
    return found


def _litter(here: World) -> None:
    """Blobs that nothing names, one of them already lying aside."""
    from tasks.store import blob_key
    from tasks.store_errors import TRASH

    line = here.line
    for content in (b"left behind", b"left behind too"):
        line.put_blob(content)
    receipt = line.put_blob(b"put aside long ago")
    line.move(blob_key(receipt.digest), TRASH + blob_key(receipt.digest))
