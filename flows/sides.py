"""Versions side by side: their names resolved, the one base they stand on, their patches on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from editors.errors import BaseNotFound, ConfigError, NotFound
from editors.loading import Checkpoint
from flows.answers import channels_of, find_channel, find_version
from tasks import channel as channels
from tasks.house import House
from tasks.intake import fetch_stack, find_base
from tasks.manifest import BaseReference, Contents, base_version, release_key
from tasks.published_base import released_base
from tasks.store import Store

BASE = "base"
"""Names the unedited model that the other version stands on."""


@dataclass(frozen=True)
class Side:
    """One of the versions that are looked at together."""

    version: str
    model: str
    base: BaseReference
    contents: Contents | None
    """None for the unedited base, which may never have been published."""
    patches: tuple[Path, ...]
    """Folders of its stack, in order."""

    @property
    def title(self) -> str:
        """What people call it."""
        return self.version if self.patches else BASE


def sides_of(names: Sequence[str], house: House) -> tuple[Side, ...]:
    """The versions of these names, `base` among them at will, on one base.

    Raises:
        NotFound: a version is unknown.
        ConfigError: a beginning is not unique, their bases differ, or `base` stands alone.
        IntegrityError: a record or a patch is damaged.
    """
    found = [None if name == BASE else channels.read_version(house.store, *find_version(house.store, name)) for name in names]
    known = [contents for contents in found if contents is not None]
    if not known:
        raise ConfigError("`base` names what another version stands on, and none is given", "name a version beside it")
    first = known[0]
    for other in known[1:]:
        if other.base.digest != first.base.digest:
            raise ConfigError(f"version {first.version} stands on the base {first.base.name} ({first.base.digest[:12]}), "
                              f"{other.version} on {other.base.name} ({other.base.digest[:12]})",
                              "compare versions of one base: suture history CHANNEL")
    return tuple(_side(contents, first, house) for contents in found)


def served_by(channel: str | None, model: str | None, house: House) -> str:
    """The version that a channel points to; of a store's only channel where none is named.

    Raises:
        NotFound: there is no such channel.
        ConfigError: there are several.
    """
    channel = channel or _only_channel(house.store)
    name = find_channel(house.store, channel, model)
    return channels.read_pointer(house.store, name, channel)[0].version


def base_under(side: Side, house: House) -> Checkpoint:
    """The base that a side stands on, from where its sheet found it, else as it was published.

    Raises:
        BaseNotFound: neither is there.
        ConfigError: what the reference leads to now is another model, and the base was never published.
    """
    published = release_key(side.model, base_version(side.base.digest))
    try:
        found = find_base(side.base.name, house)
    except BaseNotFound:
        if not house.store.exists(published):
            raise
    else:
        if found.digest == side.base.digest:
            return found
        if not house.store.exists(published):
            raise ConfigError(f"the base {side.base.name} is {found.digest[:12]} now, {side.version} stands on "
                              f"{side.base.digest[:12]}", "restore the base, or promote the version: that publishes its base")
    return released_base(channels.address(house.store, published), house)


def _side(contents: Contents | None, first: Contents, house: House) -> Side:
    if contents is None:
        return Side(base_version(first.base.digest), first.model, first.base, None, ())
    return Side(contents.version, contents.model, contents.base, contents, fetch_stack(contents, house))


def _only_channel(store: Store) -> str:
    found = sorted({name for _, name in channels_of(store)})
    if not found:
        raise NotFound(f"no channel in {store.location.url}",
                       "promote a version first, or name one: suture chat --version VERSION")
    if len(found) > 1:
        raise ConfigError(f"there are several channels: {', '.join(found)}", f"suture chat {found[0]}")
    return found[0]
