"""The stages of the walk as Prefect tasks: each shows itself, does one thing of `tasks`, and returns a small record.

Nothing is cached or kept by Prefect: a stage finds its own finished output by the digests of its inputs.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from traceback import extract_tb
from typing import ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE

from editors.errors import StoreError, SutureError, Withheld
from flows.logs import about_stage
from flows.progress import current
from tasks import channel as channels
from tasks import decisions, ledger, publish
from tasks.calibrate import calibrate
from tasks.edit import edit
from tasks.enrol import enrol
from tasks.enrol_removal import enrol_removal
from tasks.house import House
from tasks.intake import find_base, intake
from tasks.judge import judge
from tasks.locate import locate
from tasks.manifest import Cause, base_version, release_key
from tasks.measure import measure
from tasks.policy import policy_of
from tasks.records import Order, Registered
from tasks.register import mark_approval, mirror_promotion
from tasks.removal import order_removal, take_out
from tasks.signing import sign_release
from tasks.tracking import ChannelTruth
from tasks.verify import fetch
from tasks.vet import vet
from tasks.warm import warm

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def discreet(title: str, args: Sequence[object], is_private: Callable[[Sequence[object]], bool]) -> Iterator[None]:
    """Where a stage is given private texts, what fails in it without being a typed error loses its words: a message
    such as a KeyError's may quote what it met, and Prefect keeps messages.

    Raises:
        Withheld: in place of any other failure; names its kind and its place in the code.
    """
    try:
        yield
    except SutureError:
        raise
    except Exception as error:
        if not is_private(args):
            raise
        frame = extract_tb(error.__traceback__)[-1]
        raise Withheld(f"the stage {title} failed with {type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}; "
                       "its words are withheld, for they may quote a secret",
                       "run it again; if it fails again, report the kind and the place") from None


@contextmanager
def roomy(title: str) -> Iterator[None]:
    """A full disk is a typed error, whichever library met it first.

    Raises:
        StoreError: there is no room; what was finished before is kept.
    """
    try:
        yield
    except SutureError:
        raise
    except Exception as error:
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise StoreError(f"the stage {title} could not write: {os.strerror(errno.ENOSPC)}",
                         "free some space in SUTURE_HOME and run the same command again; finished work is kept") from error


def holds_secrets(args: Sequence[object]) -> bool:
    """Whether an order among the arguments withdraws secrets."""
    return any(isinstance(given, Order) and given.batch.forgets for given in args)


def stage(title: str, is_private: Callable[[Sequence[object]], bool] = holds_secrets
          ) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A Prefect task that announces itself; results stay in memory."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def announced(*args: P.args, **kwargs: P.kwargs) -> R:
            with about_stage(title, args), discreet(title, args, is_private), roomy(title):
                current().stage(title)
                return function(*args, **kwargs)

        return task(name=title, cache_policy=NO_CACHE, persist_result=False)(announced)

    return decorate


take_in = stage("intake", is_private=lambda _: True)(intake)
find_place = stage("locate")(locate)
make_patch = stage("edit")(edit)
take_measure = stage("measure")(measure)
pass_judgement = stage("judge")(judge)
look_over = stage("vet")(vet)
write_down = stage("register")(enrol)
take_in_removal = stage("intake")(order_removal)
leave_out = stage("remove")(take_out)
write_down_removal = stage("register")(enrol_removal)
fill_store = stage("warm")(warm)
sweep = stage("calibrate")(calibrate)
look_again = stage("verify")(fetch)


@stage("approve")
def approve_by_policy(order: Order, registered: Registered, house: House) -> bool:
    """Approve in the policy's name where the channel allows it; whether the version may be promoted now."""
    if not policy_of(order).approves_itself(order.channel):
        return False
    candidate = channels.read_candidate(house.store, order.model, registered.version)
    stands = decisions.approve_automatically(house.store, candidate)
    if stands.is_automatic:
        current().note(f"channel {order.channel} approves by policy: NO PERSON looked at version {registered.version}")
    show_standing(stands, order.model, registered.digest, house)
    return stands.is_approved


def show_standing(stands: decisions.Standing, model: str, digest: str, house: House) -> None:
    """Mirror a decision in the registry as soon as there is one."""
    if stands.refusal is not None:
        mark_approval(house.mlflow_uri, model, digest, "refuse", stands.refusal.decision.by)
    elif stands.is_approved:
        mark_approval(house.mlflow_uri, model, digest, "approve", ", ".join(one.decision.by for one in stands.deciding))


@stage("publish")
def publish_version(model: str, version: str, house: House) -> publish.Release:
    """The unedited base and the candidate as releases; what is there does not move."""
    house.store.probe_conditional_writes()
    candidate = channels.read_candidate(house.store, model, version)
    decisions.require(house.store, candidate)
    if not house.store.exists(release_key(model, base_version(candidate.base.digest))):
        # without the base as release nothing is before the first promotion, and no rollback could lead there
        publish.publish_base(house.store, model, candidate.base, find_base(candidate.base.name, house), house.progress)
    release = publish.publish(house.store, candidate, None, house.progress)
    if house.signer is not None:
        for one in (base_version(candidate.base.digest), version):
            sign_release(house.store, model, one, house.signer)
    return release


@stage("promote")
def point_channel(release: publish.Release, channel: str, by: str, reason: str, house: House) -> publish.Moved:
    """Move the channel to the release, enter it into the ledger, and mirror both in the registry."""
    moved = publish.point(house.store, release, channel, Cause(by, reason))
    mirror(release.model, channel, house)
    return moved


@stage("rollback")
def move_back(model: str, channel: str, to: str | None, cause: Cause, began: str, house: House) -> publish.Moved:
    """Move the channel back, enter it into the ledger, and mirror both in the registry."""
    moved = publish.rollback(house.store, model, channel, cause, to, began)
    mirror(model, channel, house)
    return moved


def heal(model: str, channel: str, house: House) -> None:
    """Finish what a kill left behind a moved pointer: its ledger entry and the registry's aliases."""
    state = channels.read(house.store, model, channel)
    if state is not None:
        ledger.heal(house.store, state.pointer)
        mirror(model, channel, house)


def mirror(model: str, channel: str, house: House) -> None:
    """Set the registry's aliases to what the store says."""
    state = channels.read(house.store, model, channel)
    if state is None:
        return
    parent = state.manifest.parent
    previous = channels.read_release(house.store, model, parent)[0] if parent else None
    truth = ChannelTruth(model=model, channel=channel, champion=state.manifest.digest if state.stack else None,
                         previous=previous.digest if previous and previous.stack else None)
    mirror_promotion(house.mlflow_uri, truth)
