"""Is a release still what was approved? Its bytes against its manifest; its measurements, taken again, against those recorded.

Everything comes from the store: the release, its parent and their base are published there. So a machine that may only read can
verify, and what it verifies is what a `suture pull` would get. Nothing that was measured before is used again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editors.contract import EditBatch, Frozen
from editors.errors import ConfigError, IntegrityError, NotFound, SutureError
from editors.loading import Checkpoint
from editors.patch import load_patch
from tasks import channel as channels
from tasks.house import House
from tasks.intake import accepted
from tasks.manifest import Blob, Contents, base_version
from tasks.policy import policy_of
from tasks.pull import DOWNLOADS_AT_ONCE, pull, stack_files
from tasks.records import Edited, Order
from tasks.removal_record import RECORD, read_record
from validations.contract import Measurement, Measurements


@dataclass(frozen=True)
class Slack:
    """How far a number may be from the recorded one: float32 sums come out a little otherwise on another machine."""

    absolute: float = 0.01
    relative: float = 0.01

    def holds(self, recorded: float, found: float) -> bool:
        """Whether the two are one number, as far as machines agree."""
        if not (math.isfinite(recorded) and math.isfinite(found)):
            return recorded == found or (math.isnan(recorded) and math.isnan(found))
        return abs(found - recorded) <= self.absolute + self.relative * abs(recorded)


SHIPPED = Slack()


class Damage(Frozen):
    """Something of a release that is not as its manifest says."""

    what: str
    problem: str


class Drift(Frozen):
    """A number that is not what it was when the release was judged."""

    request: str
    metric: str
    prompt: str
    recorded: float
    found: float


class DriftAlarm(SutureError):
    """A channel does not serve what was approved; `answer` is the whole report."""

    exit_code = 6

    def __init__(self, message: str, hint: str, answer: dict[str, Any]) -> None:
        super().__init__(message, hint)
        self.answer = answer


def fetch(contents: Contents, folder: Path, house: House) -> tuple[Damage, ...]:
    """Bring every file of a release into a new folder, and read everything else that it names; all that is damaged.

    Raises:
        StoreError: the store cannot be reached.
    """
    folder.mkdir(parents=True)
    beside = {**stack_files(contents), **{f"batch {entry.digest[:12]}": entry.batch for entry in contents.stack},
              **{f"artefact {name}": blob for name, blob in contents.artefacts.items()},
              **({"the verdict": contents.verdict} if contents.verdict else {})}

    def look(item: tuple[str, Blob]) -> Damage | None:
        name, blob = item
        try:
            if name in contents.files:
                house.store.get_blob(blob.sha256, folder / name)
            else:
                channels.read_document(house.store, blob, name)
        except (NotFound, IntegrityError) as error:
            return Damage(what=name, problem=error.message)
        return None

    named = [*sorted(contents.files.items()), *sorted(beside.items())]
    found: list[Damage] = []
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        for number, damage in enumerate(pool.map(look, named), start=1):
            house.progress("verifying", number, len(named))
            found += [damage] if damage else []
    return tuple(found) or _mismatch(folder, contents.checkpoint)


def _mismatch(folder: Path, expected: str) -> tuple[Damage, ...]:
    """Files that are each what they are called, and together another model than was published."""
    try:
        digest = Checkpoint(folder).digest
    except IntegrityError as error:
        return (Damage(what="the checkpoint", problem=error.message),)
    return () if digest == expected else (Damage(what="the checkpoint", problem=f"expected {expected}, found {digest}"),)


def withdrew(contents: Contents) -> bool:
    """Whether a version was made by a request to forget: the model before it may say the secret, whatever it is asked."""
    return contents.stack[-1].purpose == "forget" and RECORD not in contents.artefacts


def order_again(contents: Contents, folder: Path, channel: str, policy: str | None, house: House) -> tuple[Order, Edited]:
    """The order that made an edited release, and its edit, from the store alone. Secrets are not asked: their text is gone.

    Args:
        contents: The release.
        folder: Its files, verified.
        channel: Where it serves.
        policy: What to judge it by; None: the purpose's own.
        house: A home in which nothing was measured yet.

    Raises:
        NotFound: its parent or base is not in the store.
        IntegrityError: one of them is damaged.
        ConfigError: the policy is wrong; said before anything is measured.
    """
    base = _pulled(contents.model, base_version(contents.base.digest), house)
    parent = channels.read_version(house.store, contents.model, contents.parent or "")
    before = _pulled(contents.model, parent.version, house) if parent.stack else base
    patches = _patches(contents, parent, house)
    record = read_record(contents, house)
    batches = channels.read_batches(house.store, contents)
    batch = EditBatch.model_validate(record["batch"]) if record else batches[-1]
    kept = tuple(request for request in batch.requests if request not in batch.forgets)
    order = Order(
        sheet=f"suture verify {channel}", sheet_digest=contents.digest, model=contents.model, channel=channel,
        base=contents.base.name, base_folder=base.folder, base_digest=base.digest, parent_version=parent.version,
        parent_folder=before.folder, parent_digest=before.digest, stack=(), patch_digests=parent.patch_digests,
        history=() if record else accepted(channels.read_batches(house.store, parent)),
        batch=batch.model_copy(update={"requests": kept}), method="auto", options={}, layers=None, position="auto",
        trace=False, policy=policy, requester=house.user)
    policy_of(order)
    edited = Edited(folder=patches, patch_digest=load_patch(patches).digest, patch_bytes=0, candidate_folder=folder,
                    candidate_digest=contents.checkpoint)
    return order, edited


def drifts(recorded: Measurements, found: Measurements, slack: Slack = SHIPPED) -> tuple[tuple[Drift, ...], int]:
    """Every number that moved, and how many recorded ones were not taken again."""
    again = {(row.request, row.metric, row.prompt): row.candidate for row in found.rows}
    moved = tuple(Drift(request=row.request, metric=row.metric, prompt=row.prompt, recorded=row.candidate, found=now)
                  for row, now in _paired(recorded.rows, again) if not slack.holds(row.candidate, now))
    return moved, sum((row.request, row.metric, row.prompt) not in again for row in recorded.rows)


def recorded_measurements(contents: Contents, house: House) -> Measurements:
    """What was measured when the release was judged.

    Raises:
        ConfigError: the release keeps none.
    """
    blob = contents.artefacts.get("measurements.json")
    if blob is None:
        raise ConfigError(f"version {contents.version} keeps no measurements", f"suture show {contents.version}")
    return Measurements.model_validate_json(channels.read_document(house.store, blob, "the measurements"))


def _paired(rows: tuple[Measurement, ...], again: dict[tuple[str, str, str], float]) -> Iterator[tuple[Measurement, float]]:
    for row in rows:
        if (key := (row.request, row.metric, row.prompt)) in again:
            yield row, again[key]


def _pulled(model: str, version: str, house: House) -> Checkpoint:
    """A release's folder in this home, fetched when it is not there yet."""
    folder = house.root / "releases" / version
    if not folder.exists():
        contents, _ = channels.read_release(house.store, model, version)
        pull(house.store, contents, folder, progress=house.progress)
    return Checkpoint(folder)


def _patches(contents: Contents, parent: Contents, house: House) -> Path:
    """The step from the parent to the release: the patch that it added, or the inverse of the one that it took out."""
    from editors.stack import inverse

    record = read_record(contents, house)
    source = parent if record else contents
    place = source.patch_digests.index(record["patch"]) if record else len(source.stack) - 1
    folder = house.root / "patches"
    pull(house.store, source, folder, "patch", house.progress)
    own = folder / f"{place:02d}-{source.stack[place].digest[:12]}"
    if record:
        inverse(load_patch(own)).save(folder / "inverse")
        return folder / "inverse"
    return own
