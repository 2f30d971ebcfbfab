"""Talk to one version, or to two side by side on one loaded base. Nothing that is said is kept anywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Protocol

from editors.errors import ConfigError
from flows.house import open_house
from flows.progress import current
from flows.services import QUIET
from flows.settings import Settings
from flows.sides import BASE, Side, base_under, served_by, sides_of

if TYPE_CHECKING:
    from validations.conversing import Conversation, Manner


class Screen(Protocol):
    """Where a talk is held."""

    def open(self, titles: Sequence[str], form: str) -> None:
        """Say who is there."""

    def ask(self) -> str | None:
        """The next line; None at the end."""

    def show(self, line: str, answers: Iterator[tuple[str, ...]]) -> None:
        """What each says to the line, as far as it has come; the last is whole."""

    def tell(self, error: ConfigError) -> None:
        """Why there is no answer."""

    def close(self) -> dict[str, Any]:
        """What there is to say at the end."""


@dataclass(frozen=True)
class Invited:
    """Who is to talk."""

    channel: str | None
    model: str | None
    version: str | None
    """None: what the channel points to."""
    against: str | None
    """None: nobody beside it."""


def prepare(settings: Settings, invited: Invited, manner: Manner, *,
            plain: bool) -> tuple[tuple[Side, ...], list[Conversation]]:
    """The versions, and a conversation with each, all in the memory of one model.

    Raises:
        SutureError: whatever `sides_of` and `base_under` raise.
    """
    from editors.loading import load
    from editors.overlay import overlay_of
    from editors.patch import load_patch
    from validations.conversing import Conversation, form_of

    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with open_house(settings) as house:
        current().stage("load")
        needs_channel = invited.version is None or (invited.version == BASE and invited.against in (None, BASE))
        served = served_by(invited.channel, invited.model, house) if needs_channel else None
        names = [invited.version or served, invited.against]
        # the channel's release says which base is meant where nothing else does
        found = sides_of([name for name in (*names, served) if name], house)[:sum(name is not None for name in names)]
        base = base_under(found[0], house)
        loaded = load(base, house.device)
    form = form_of(loaded, plain)
    overlays = [overlay_of(base, [load_patch(folder) for folder in side.patches], loaded.model) for side in found]
    return found, [Conversation(loaded, overlay, form, manner) for overlay in overlays]


def converse(talks: Sequence[Conversation], titles: Sequence[str], screen: Screen) -> dict[str, Any]:
    """Line by line until the end of the input or `/quit`; `/reset` makes everybody forget what was said."""
    screen.open(titles, talks[0].form)
    while (line := screen.ask()) is not None and line.strip() != "/quit":
        if line.strip() == "/reset":
            for talk in talks:
                talk.reset()
        elif line.strip():
            try:
                screen.show(line.strip(), _together([talk.answer(line.strip()) for talk in talks]))
            except ConfigError as error:
                screen.tell(error)
    return screen.close()


def _together(streams: Sequence[Iterator[str]]) -> Iterator[tuple[str, ...]]:
    """Answers as they grow, a token of each in turn; who is through stays as he is."""
    answers = [""] * len(streams)
    yield tuple(answers)
    for grown in zip_longest(*streams):
        answers = [new if new is not None else old for new, old in zip(grown, answers, strict=True)]
        yield tuple(answers)
