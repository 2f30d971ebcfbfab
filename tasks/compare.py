"""Two versions of one base, whichever they are: what the second does where either of them was taught something.

Where the second was made on top of the first, the store has the answer: its verdict and page. Otherwise both are measured on
every accepted request of both, and judged as a removal is: the policy `removal` asks of each request that it holds in the
second as it does in the first. Where both teach the same question, the second's answer is the one to hold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from editors.contract import EditBatch, EditRequest
from editors.digest import digest_document
from editors.errors import ConfigError
from editors.forget_request import SealedForget
from editors.loading import Checkpoint
from editors.patch import load_patch
from tasks import channel as channels
from tasks.enrol import steps_of
from tasks.house import House
from tasks.intake import accepted, materialise
from tasks.judge import judge
from tasks.manifest import Contents, base_version
from tasks.measure import measure_folder, read_measurements
from tasks.policy import policy_of
from tasks.records import Order
from tasks.removal import apart
from tasks.search import search
from validations.about import About, Command
from validations.contract import Measurements, Verdict
from validations.earlier.examination import kept_requests
from validations.page import render_page
from validations.tables import spare
from validations.weights import changed_weights

PAGE, MEASUREMENTS = "page.html", "measurements.json"


@dataclass(frozen=True)
class Compared:
    """One version of the two, with its patches on this machine; `contents` None for the unedited base."""

    version: str
    contents: Contents | None
    patches: tuple[Path, ...]


@dataclass(frozen=True)
class Comparison:
    """What there is to show."""

    verdict: Verdict
    measurements: Measurements
    page: bytes
    is_recorded: bool
    """Whether it is the second version's own verdict, found in the store."""


def recorded(old: Compared, new: Compared, house: House) -> Comparison | None:
    """The second version's own records, where it was made on top of the first; None where they do not answer.

    Raises:
        IntegrityError: a record is gone or damaged.
    """
    contents = new.contents
    if contents is None or contents.parent != old.version or contents.verdict is None:
        return None
    if PAGE not in contents.artefacts or MEASUREMENTS not in contents.artefacts:
        return None
    verdict, page, measured = (channels.read_document(house.store, blob, f"the {what} of {new.version}") for what, blob in (
        ("verdict", contents.verdict), ("page", contents.artefacts[PAGE]), ("measurements", contents.artefacts[MEASUREMENTS])))
    return Comparison(Verdict.model_validate_json(verdict), Measurements.model_validate_json(measured), page, is_recorded=True)


def compare(old: Compared, new: Compared, base: Checkpoint, policy: str | None, house: House) -> Comparison:
    """Measure the second against the first, and judge and show it.

    Raises:
        ConfigError: they are the same, one withdrew secrets that the other may say, nothing can be asked, or the policy is
            wrong.
        IntegrityError: weights come out otherwise than when they were published.
    """
    order, candidate = _order(old, new, base, policy, house)
    patches = _between(old, new, house)
    measured = measure_folder(order, candidate.folder, patches, house)
    judged, found = judge(order, candidate.digest, measured, house), read_measurements(measured)
    about = replace(_about(order, old, new, candidate, patches, judged.verdict, house),
                    spare=spare(policy_of(order), found, order.batch))
    page = render_page(judged.verdict, found, order.batch, about)
    return Comparison(judged.verdict, found, page.encode(), is_recorded=False)


def _order(old: Compared, new: Compared, base: Checkpoint, policy: str | None, house: House) -> tuple[Order, Checkpoint]:
    known: Any = new.contents or old.contents
    requests = _requests(old, new, house)
    parent, candidate = (materialise(base, side.patches, house, side.contents.checkpoint if side.contents else base.digest)
                         for side in (old, new))
    if parent.digest == candidate.digest:
        raise ConfigError(f"versions {old.version} and {new.version} are one model: there is nothing to compare",
                          f"suture show {new.version}")
    batch = EditBatch(purpose="removal", base_digest=base.digest, parent_digest=parent.digest, requests=apart(requests))
    order = Order(
        sheet=f"suture compare {old.version} {new.version}", sheet_digest=digest_document([old.version, new.version]),
        model=known.model, channel="", base=known.base.name, base_folder=base.folder, base_digest=base.digest,
        parent_version=old.version, parent_folder=parent.folder, parent_digest=parent.digest, stack=old.patches,
        patch_digests=old.contents.patch_digests if old.contents else (), history=(), batch=batch, method="auto", options={},
        layers=None, position="auto", trace=False, policy=policy, requester=house.user)
    policy_of(order)
    if not batch.updates and not kept_requests(batch, ()):
        raise ConfigError(f"nothing that {old.version} or {new.version} were taught can be asked again: secrets are kept as "
                          "seals, and the manner of free text is not measured anew", f"suture show {new.version}")
    return order, candidate


def _requests(old: Compared, new: Compared, house: House) -> tuple[EditRequest, ...]:
    """Every accepted request of both, the second's where they meet.

    Raises:
        ConfigError: one of them withdrew secrets that the other may say, whatever it is asked; or there is no request.
    """
    batches = [channels.read_batches(house.store, side.contents) if side.contents else () for side in (old, new)]
    seals = [sorted(one.seal for one in accepted(held) if isinstance(one, SealedForget)) for held in batches]
    if seals[0] != seals[1]:
        raise ConfigError(f"versions {old.version} and {new.version} did not withdraw the same secrets: one of them may say "
                          "what the other must not, so neither is asked anything", f"suture show {new.version}")
    found = accepted((*batches[0], *batches[1]))
    if not found:
        raise ConfigError(f"neither {old.version} nor {new.version} was taught anything", "name a version that was edited")
    return found


def _between(old: Compared, new: Compared, house: House) -> tuple[Path, ...]:
    """Patches that lead from the first to the second: its own taken back, latest first, down to where the stacks part."""
    from editors.stack import inverse

    ours, theirs = ([load_patch(folder).digest for folder in side.patches] for side in (old, new))
    shared = next((place for place, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]),
                  min(len(ours), len(theirs)))

    def taken(patch: Path) -> Path:
        def work(folder: Path) -> dict[str, Any]:
            return {"inverse": inverse(load_patch(patch)).save(folder)}

        return house.workspace.run("inverse-1", {"patch": load_patch(patch).digest}, work).folder

    return (*(taken(patch) for patch in reversed(old.patches[shared:])), *new.patches[shared:])


def _about(order: Order, old: Compared, new: Compared, candidate: Checkpoint, patches: tuple[Path, ...],
           verdict: Verdict, house: House) -> About:
    stack = new.contents.stack if new.contents else ()
    count, before = len(order.batch.requests), _named(old, order)
    nothing_lost = (f"Nothing lost: {_named(new, order)} does what {before} does on {count} request{'s' if count > 1 else ''}, "
                    f"and every limit of the policy {verdict.policy!r} held.")
    return About(
        model=order.model, version=new.version, method=f"comparison with {before}",
        decision=nothing_lost if verdict.passed else "",
        provenance={"base": f"{order.base} ({order.base_digest})", "before": before, "after": _named(new, order)},
        commands=[Command("Talk to both", f"suture chat --version {_typed(new)} --against {_typed(old)}")],
        stack=steps_of(stack),
        weights=changed_weights(Checkpoint(order.parent_folder), candidate, tuple(load_patch(folder) for folder in patches)),
        search=search(order, candidate.folder, house)[0])


def _named(side: Compared, order: Order) -> str:
    is_base = side.version == base_version(order.base_digest)
    return f"the unedited base {side.version}" if is_base else f"version {side.version}"


def _typed(side: Compared) -> str:
    return side.version if side.contents else "base"
