"""YAML, JSON and JSONL text as trees whose nodes know their lines; nothing in a tree was coerced.

Values are text, numbers, booleans and null; what readers of YAML take differently (`007`, `0x1f`, `1:30`, dates) is
kept as text with a flaw to report. No tags, one document, bounded depth, and bounded size after aliases are expanded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_DEPTH = 32
MAX_SIZE = 1 << 24
NODE_SIZE = 32
MAX_NUMBER_CHARACTERS = 40

INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]*|(?=\.[0-9]))(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?")
NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
JSON_TOKEN = re.compile(
    r'(?P<string>"[^"\\]*(?:\\.[^"\\]*)*")|(?P<open>[\[{])|(?P<close>[\]}])|(?P<word>[^\s,:\[\]{}"]+)')
JSON_WORDS = {"true": True, "false": False, "null": None}
TAG_PREFIX = "tag:yaml.org,2002:"
ODD_SCALARS = {"timestamp": "is a date to YAML, not text: put it in quotes",
               "merge": "is YAML's merge sign: write the keys out", "value": "has a meaning in YAML: put it in quotes"}


@dataclass(frozen=True)
class Flaw:
    """Something wrong at one line of a mapping's `key`, or of the node itself when `key` is empty."""

    line: int
    message: str
    key: str = ""


@dataclass(frozen=True)
class Node:
    """A value with its line (1-based). `key_lines` holds the line of each key of a mapping."""

    line: int
    value: str | int | float | bool | tuple[Node, ...] | dict[str, Node] | None
    key_lines: Mapping[str, int] = field(default_factory=dict)
    flaws: tuple[Flaw, ...] = ()
    size: int = NODE_SIZE
    """Characters, and 32 for each node, with every alias written out."""

    def plain(self) -> Any:
        """The value without lines, ready for JSON."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        return [child.plain() for child in self.value] if isinstance(self.value, tuple) else self.value

    def child(self, part: str | int) -> Node | None:
        """The node under a key or an index; None where there is none."""
        if isinstance(self.value, dict) and isinstance(part, str):
            return self.value.get(part)
        if isinstance(self.value, tuple) and isinstance(part, int) and part < len(self.value):
            return self.value[part]
        return None


class UnreadableError(Exception):
    """The text is not in its format at all; `line` is where reading stopped."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass
class _Open:
    line: int
    is_mapping: bool
    anchor: str | None
    items: list[Node] = field(default_factory=list)


class _Builder:
    """Turns a stream of openings, closings and scalars into one tree, without recursion."""

    def __init__(self) -> None:
        self.stack: list[_Open] = []
        self.anchors: dict[str, Node] = {}
        self.root: Node | None = None
        self.size = 0

    def open(self, line: int, *, is_mapping: bool, anchor: str | None = None) -> None:
        if len(self.stack) >= MAX_DEPTH:
            raise UnreadableError(line, f"nests deeper than {MAX_DEPTH} levels")
        self.stack.append(_Open(line, is_mapping, anchor))

    def close(self) -> None:
        done = self.stack.pop()
        node = _mapping(done) if done.is_mapping else Node(
            done.line, tuple(done.items), size=NODE_SIZE + sum(item.size for item in done.items))
        self.size -= node.size - NODE_SIZE
        self.add(node, done.anchor)

    def alias(self, line: int, anchor: str) -> None:
        if anchor not in self.anchors:
            raise UnreadableError(line, "an alias (`*`) without its anchor (`&`); text after `*` needs quotes")
        self.add(self.anchors[anchor])

    def add(self, node: Node, anchor: str | None = None) -> None:
        if anchor:
            self.anchors[anchor] = node
        self.size += node.size
        if self.size > MAX_SIZE:
            raise UnreadableError(node.line, "the sheet is too large here, with its aliases written out")
        if self.stack:
            self.stack[-1].items.append(node)
        else:
            self.root = node


def _mapping(done: _Open) -> Node:
    keys, values = done.items[::2], done.items[1::2]
    children: dict[str, Node] = {}
    lines: dict[str, int] = {}
    flaws: list[Flaw] = []
    for key, value in zip(keys, values, strict=True):
        if not isinstance(key.value, str) or key.flaws:
            flaws.append(Flaw(key.line, "has a key that is not a word: put it in quotes"))
        elif key.value in children:
            flaws.append(Flaw(key.line, f"is given twice, first in line {lines[key.value]}", key.value))
        else:
            children[key.value], lines[key.value] = value, key.line
    return Node(done.line, children, lines, tuple(flaws), NODE_SIZE + sum(item.size for item in done.items))


def _text(line: int, text: str) -> Node:
    if NOT_TEXT.search(text):
        return Node(line, "", flaws=(Flaw(line, "holds a control character, or half a surrogate pair"),))
    return Node(line, text, size=NODE_SIZE + len(text))


def _number(line: int, raw: str) -> Node:
    flaw: tuple[Flaw, ...] = ()
    if len(raw) <= MAX_NUMBER_CHARACTERS:
        value = int(raw) if INTEGER.fullmatch(raw) else float(raw)
        if math.isfinite(value):
            return Node(line, value)
        flaw = (Flaw(line, "is not a finite number"),)
    return Node(line, raw, flaws=flaw or (Flaw(line, f"is a number of over {MAX_NUMBER_CHARACTERS} characters"),))


def read_json(text: str, first_line: int = 1) -> Node:
    """The tree of one JSON document; `first_line` numbers its first line.

    Raises:
        UnreadableError: the text is not JSON, or nests too deep.
    """
    try:
        json.loads(text, parse_constant=_refuse_constant, parse_int=len, parse_float=len)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise UnreadableError(line, f"is not JSON at column {error.colno}: {error.msg}") from error
    except (RecursionError, ValueError) as error:
        raise UnreadableError(first_line, f"is not JSON: {error}") from error
    builder, line, seen = _Builder(), first_line, 0
    for token in JSON_TOKEN.finditer(text):
        line, seen = line + text.count("\n", seen, token.start()), token.start()
        kind, raw = token.lastgroup, token.group()
        if kind == "open":
            builder.open(line, is_mapping=raw == "{")
        elif kind == "close":
            builder.close()
        elif kind == "string":
            builder.add(_text(line, json.loads(raw)))
        else:
            builder.add(Node(line, JSON_WORDS[raw]) if raw in JSON_WORDS else _number(line, raw))
    return builder.root or Node(first_line, None)


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not a number of JSON")


def read_json_lines(text: str) -> Iterator[Node | UnreadableError]:
    """One tree, or what is wrong, for each line that is not blank."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield read_json(line, number)
            except UnreadableError as problem:
                yield problem


def read_yaml(text: str) -> Node:
    """The tree of one YAML document.

    Raises:
        UnreadableError: the text is not YAML, holds a tag or a second document, or is larger than the limits.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    builder, line = _Builder(), 1
    try:
        for event in yaml.parse(text, loader):
            line = event.start_mark.line + 1 if event.start_mark else line
            _yaml_event(builder, event, line)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else line
        raise UnreadableError(line, _yaml_advice(text, line, error)) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise UnreadableError(line, "is not YAML: it holds a character that YAML does not allow") from error
    return builder.root or Node(1, None)


def _yaml_event(builder: _Builder, event: Any, line: int) -> None:
    import yaml

    if isinstance(event, yaml.DocumentStartEvent) and builder.root is not None:
        raise UnreadableError(line, "begins a second document: one file holds one sheet")
    if getattr(event, "tag", None) is not None:
        raise UnreadableError(line, "holds a tag (`!`); text that begins with `!` needs quotes")
    if isinstance(event, yaml.AliasEvent):
        builder.alias(line, event.anchor or "")
    elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
        builder.open(line, is_mapping=isinstance(event, yaml.MappingStartEvent), anchor=event.anchor)
    elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
        builder.close()
    elif isinstance(event, yaml.ScalarEvent):
        builder.add(_text(line, event.value) if event.style else _bare_scalar(line, event.value), event.anchor)


def _bare_scalar(line: int, raw: str) -> Node:
    """A scalar without quotes: text only where no reader of YAML would see anything else."""
    import yaml

    tag = yaml.SafeLoader.yaml_implicit_resolvers
    kind = next((name.removeprefix(TAG_PREFIX) for name, pattern in tag.get(raw[:1], []) if pattern.match(raw)), "str")
    if kind == "null":
        return Node(line, None)
    if kind == "bool":
        return Node(line, raw.casefold() in ("true", "yes", "on"))
    if INTEGER.fullmatch(raw) or FLOAT.fullmatch(raw):
        return _number(line, raw)
    if kind in ("int", "float"):
        return Node(line, raw, flaws=(Flaw(line, "is a number that YAML readers take differently: put it in quotes"),))
    if kind in ODD_SCALARS:
        return Node(line, raw, flaws=(Flaw(line, ODD_SCALARS[kind]),))
    return _text(line, raw)


def _yaml_advice(text: str, line: int, error: Any) -> str:
    # str(error) would quote the offending line, and a request's text stays out of messages
    problem = str(error.problem or error.context or "it cannot be parsed")
    near = "\n".join(text.splitlines()[max(line - 2, 0):line])
    if re.search(r":\s+\{\}\s*\S", near):
        return f"is not YAML: {problem}; text that begins with `{{}}` needs quotes around all of it"
    if "mapping values are not allowed" in problem:
        return f"is not YAML: {problem}; text that holds `: ` needs quotes around all of it"
    return f"is not YAML: {problem}"
