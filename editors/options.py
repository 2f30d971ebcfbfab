"""A method's options, from a sheet's mapping to its frozen config; unknown names are refused with the nearest one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, TypeVar, get_type_hints

from editors.errors import ConfigError

T = TypeVar("T")


def config_from(kind: type[T], options: Mapping[str, Any], method: str) -> T:
    """Build `kind` from flat options; fields of nested configs are named without their nest.

    Raises:
        ConfigError: an option is unknown, has the wrong type, or is outside its range.
    """
    known = _flat(kind)
    for name, value in options.items():
        if name not in known:
            near = get_close_matches(str(name), known, 1)
            raise ConfigError(f"{method} has no option {name!r}",
                              f"use {near[0]!r}" if near else f"use one of {', '.join(sorted(known))}")
        _check_type(method, name, value, known[name])
    try:
        return _build(kind, options)
    except ConfigError as error:
        raise ConfigError(f"{method}.{error.message}", error.hint) from error


def _flat(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    flat: dict[str, Any] = {}
    for entry in fields(kind):
        flat |= _flat(hints[entry.name]) if is_dataclass(hints[entry.name]) else {entry.name: hints[entry.name]}
    return flat


def _build(kind: type[T], options: Mapping[str, Any]) -> T:
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for entry in fields(kind):  # type: ignore[arg-type]
        if is_dataclass(hints[entry.name]):
            # a method may give the nested config other defaults than its own
            defaults = {} if entry.default_factory is MISSING else vars(entry.default_factory())
            values[entry.name] = _build(hints[entry.name], {**defaults, **options})
        elif entry.name in options:
            values[entry.name] = options[entry.name]
    return kind(**values)


def _check_type(method: str, name: str, value: Any, expected: Any) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    right = is_number if expected is float else isinstance(value, int) and is_number if expected is int else True
    if not right:
        wanted = "a number" if expected is float else "a whole number"
        raise ConfigError(f"{method}.{name} must be {wanted}, got {value!r}", f"set {name} to {wanted}")


def check_ranges(config: object, **ranges: str) -> None:
    """Hold fields of a config to intervals as they are written: `steps="[1, 100]"`, `ridge="(0, 1e9]"`. None is not held.

    Raises:
        ConfigError: a field lies outside its interval; the message names both.
    """
    for name, written in ranges.items():
        value = getattr(config, name)
        if value is None:
            continue
        low, high = (float(bound) for bound in written[1:-1].split(","))
        is_above = value >= low if written[0] == "[" else value > low
        is_below = value <= high if written[-1] == "]" else value < high
        if not (is_above and is_below):
            raise ConfigError(f"{name} must be in {written}, got {value!r}", f"set {name} inside that range")
