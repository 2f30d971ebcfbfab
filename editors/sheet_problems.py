"""What is wrong with a sheet, said by line and field: pydantic's findings in a writer's words.

No message quotes a value: a request's text may be about a person.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from editors.marked import Node

MAX_SHOWN_CHARACTERS = 40
MESSAGES = {
    "missing": "`{field}` is required",
    "string_type": "is {found}, not text: put it in quotes",
    "tuple_type": "is {found}, not a list: write [first, second], or one item a line after `- `",
    "model_type": "is {found}, not a mapping of {fields}",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must be lower-case letters, digits, `.`, `_`, `-`, at most 63, beginning with no sign",
    "value_error": "{error}",
}
Place = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Problem:
    """One thing to mend. Line 0 is the command line."""

    line: int
    place: Place
    message: str

    def render(self, name: str) -> str:
        """`file:line: field: message`."""
        where = f"{name}:{self.line}" if self.line else "command line"
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.place).lstrip(".")
        return f"{where}: {path}: {self.message}" if path else f"{where}: {self.message}"


def checked(kind: type[Model], node: Node, place: Place, problems: list[Problem],
            elsewhere: Mapping[str, str]) -> Model | None:
    """The node as a `kind`; else None, with what is wrong added to `problems`. No value is coerced to another type.

    Args:
        kind: The model to build.
        node: Its tree.
        place: Where the tree stands in the sheet.
        problems: Grows by what is wrong.
        elsewhere: Fields that are known in another place, with the words that say where.
    """
    try:
        return kind.model_validate_json(json.dumps(node.plain()), strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False)
        found += _findings_on_the_whole(kind, node, {str(item["loc"][0]) for item in found if item["loc"]})
        problems += [_explain(kind, node, item, place, elsewhere) for item in found]
    return None


def _findings_on_the_whole(kind: type[BaseModel], node: Node, bad_fields: set[str]) -> list[Any]:
    """What pydantic says only once every field is right: bad fields have stand-ins, so that one slip hides no other."""
    if not bad_fields or not isinstance(node.value, dict):
        return []
    trial = {key: value for key, value in node.plain().items() if key not in bad_fields}
    for name in bad_fields & kind.model_fields.keys():
        annotation = kind.model_fields[name].annotation
        options = (annotation, *get_args(annotation))
        if str in options:
            trial[name] = "-"
        elif any(get_origin(option) is tuple for option in options):
            trial[name] = []
    try:
        kind.model_validate_json(json.dumps(trial), strict=True)
    except ValidationError as error:
        return [item for item in error.errors(include_url=False) if not item["loc"]]
    return []


def flaws(node: Node, place: Place = ()) -> Iterator[Problem]:
    """What was already wrong as text: keys given twice, dates, numbers that readers take differently."""
    for flaw in node.flaws:
        yield Problem(flaw.line, (*place, flaw.key) if flaw.key else place, flaw.message)
    children: Iterable[tuple[str | int, Node]] = ()
    if isinstance(node.value, dict):
        children = node.value.items()
    elif isinstance(node.value, tuple):
        children = enumerate(node.value)
    for part, child in children:
        yield from flaws(child, (*place, part))


def _explain(kind: type[BaseModel], node: Node, error: Mapping[str, Any], place: Place,
             elsewhere: Mapping[str, str]) -> Problem:
    loc: Place = error["loc"]
    depth = next((depth for depth in range(len(loc), 0, -1) if _node_at(node, loc[:depth]) is not None), 0)
    found = _node_at(node, loc[:depth]) or node
    message = _message(kind, found, error, elsewhere)
    trimmed = loc[:-1] if error["type"] in ("missing", "extra_forbidden") else loc[:depth]
    return Problem(line_of(node, loc[:depth]), place + trimmed, message)


def _message(kind: type[BaseModel], found: Node, error: Mapping[str, Any], elsewhere: Mapping[str, str]) -> str:
    loc, context = error["loc"], error.get("ctx", {})
    field = str(loc[-1]) if loc else ""
    if error["type"] == "extra_forbidden":
        return _unknown(field, tuple(_model_at(kind, loc[:-1]).model_fields), elsewhere)
    words = MESSAGES.get(error["type"], str(error["msg"]).replace("Input should", "must"))
    fields = ", ".join(f"`{name}`" for name in _model_at(kind, loc).model_fields)
    return words.format(field=field, found=_kind_of(found), fields=fields, **context)


def _unknown(field: str, known: Sequence[str], elsewhere: Mapping[str, str]) -> str:
    shown = field[:MAX_SHOWN_CHARACTERS]
    if field in elsewhere:
        return f"`{shown}` {elsewhere[field]}"
    return f"`{shown}` is unknown{nearest(field, known) or '; known are ' + ', '.join(known)}"


def nearest(word: str, known: Sequence[str]) -> str:
    """`, did you mean ...?`, or nothing when no known word is near."""
    near = get_close_matches(word.casefold(), known, 1)
    return f", did you mean `{near[0]}`?" if near else ""


def _kind_of(node: Node) -> str:
    # bool before int: True is an int to isinstance
    kinds = {bool: "a yes/no value", int | float: "a number", str: "text", tuple: "a list", dict: "a mapping"}
    return next((words for kind, words in kinds.items() if isinstance(node.value, kind)), "empty")


def _node_at(node: Node, loc: Place) -> Node | None:
    found: Node | None = node
    for part in loc:
        found = found.child(part) if found else None
    return found


def line_of(node: Node, loc: Place) -> int:
    """The line of a field's key, or of an item."""
    parent = _node_at(node, loc[:-1])
    if parent and loc and loc[-1] in parent.key_lines:
        return parent.key_lines[str(loc[-1])]
    found = _node_at(node, loc)
    return found.line if found else node.line


def _model_at(kind: type[BaseModel], loc: Place) -> type[BaseModel]:
    for part in loc:
        if isinstance(part, str) and part in kind.model_fields:
            kind = next(iter(_models_in(kind.model_fields[part].annotation)), kind)
    return kind


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
