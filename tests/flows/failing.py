"""Making one function of the house fail in a process, with words that must not come out."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any


def fail_in(owner: str, name: str, words: str) -> None:
    """Replace `package.module` or `package.module:Class`'s function by one that raises a KeyError of the words."""
    place = resolve_name(owner)
    if not callable(getattr(place, name)):
        raise TypeError(f"{owner} has no function {name}")
    setattr(place, name, _failing(words))


def _failing(words: str) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise KeyError(words)

    return fail
