"""Edit sheets: what a user writes, read strictly. Every problem is reported at once, with its line and field.

A sheet is YAML, JSON or JSONL, told apart by the file's suffix. In JSONL each line is a request; the first line is the
head (purpose, base, channel, ...) when it holds none of a request's own fields, otherwise the caller gives the head.
Messages never quote the text of a request: it may be about a person.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

import editors
from editors.contract import EditRequest, Frozen, SheetPurpose, UpdateRequest
from editors.debias_request import DebiasRequest
from editors.detoxify_request import DetoxifyRequest
from editors.digest import digest_document
from editors.errors import SheetError
from editors.forget_request import ForgetRequest
from editors.marked import Node, UnreadableError, read_json, read_json_lines, read_yaml
from editors.sheet_problems import Place, Problem, checked, flaws, line_of, nearest

MAX_BYTES = 8 << 20
SLUG = r"^[a-z0-9][a-z0-9._-]{0,62}$"
READERS = {".yaml": read_yaml, ".yml": read_yaml, ".json": read_json}
LINE_SUFFIXES = (".jsonl", ".ndjson")
Written = UpdateRequest | ForgetRequest | DetoxifyRequest | DebiasRequest
"""A request as a sheet holds it."""
REQUESTS: dict[str, type[Written]] = {
    "update": UpdateRequest, "forget": ForgetRequest, "detoxify": DetoxifyRequest, "debias": DebiasRequest}
"""Request class by purpose; a new purpose adds its line."""

Slug = Annotated[str, Field(pattern=SLUG)]


class Method(Frozen):
    """The editor to use with its options. In a sheet: a name, or a mapping of `name` and the options."""

    name: str = "auto"
    options: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"name": given}
        if isinstance(given, dict) and not isinstance(given.get("options"), dict):
            return {"name": given.get("name", "auto"), "options": {k: v for k, v in given.items() if k != "name"}}
        return given

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        known = ("auto", *editors.names())
        if name not in known:
            raise ValueError(f"{name!r} is unknown{nearest(name, known)}")
        return name


class SheetHead(Frozen):
    """Everything of a sheet but its requests."""

    purpose: SheetPurpose
    base: str = Field(min_length=1)
    """The packaged model's name, a hub id, a folder, `s3://...` or `models:/name@alias`."""
    channel: Slug = "main"
    """The line of releases it belongs to; its current release, if any, is the parent."""
    model: Slug | None = None
    """Name in the registry and in release paths; None: made from `base`."""
    method: Method = Method()
    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    """Edit layers (0-based) instead of the calibration table's."""
    position: Literal["auto", "subject_last", "question_last", "prompt_last"] = "auto"
    locate: bool | Literal["auto"] = True
    """Whether the purpose's locator runs for its evidence; false saves its time and changes no edit. `auto`: before it, the
    layers are sought by edits of facts that the model knows."""
    policy: str | None = Field(default=None, min_length=1)
    """Name of a shipped gate policy, or a path to one; None: the purpose's own."""
    requester: str = ""
    reason: str = ""

    @field_validator("locate", mode="before")
    @classmethod
    def _yes_no_or_auto(cls, given: Any) -> Any:
        if isinstance(given, bool) or given == "auto":
            return given
        raise ValueError("must be true, false or auto")


class Sheet(SheetHead):
    """A parsed sheet. Requests without `requester` or `reason` have the head's."""

    requests: tuple[EditRequest, ...] = Field(min_length=1)

    @property
    def digest(self) -> str:
        """SHA-256 of the sheet's content, the same for the same content in any of the formats; private texts by their
        seals.
        """
        return digest_document(self.model_dump(mode="json"))

    @property
    def is_private(self) -> bool:
        """Whether a request holds texts that must not be kept."""
        return any(isinstance(request, ForgetRequest) for request in self.requests)

    def sealed(self, key: bytes) -> Sheet:
        """The same sheet with every private request under its seal."""
        requests = (request.sealed(key) if isinstance(request, ForgetRequest) else request for request in self.requests)
        return self.model_copy(update={"requests": tuple(requests)})

    @property
    def model_name(self) -> str:
        """`model`, or a slug of the base's last path component without alias or version."""
        if self.model:
            return self.model
        last = re.sub(r"@.*$", "", self.base.rstrip("/")).rsplit("/", 1)[-1].casefold()
        return re.sub(r"[^a-z0-9._-]+", "-", last).strip("-._")[:63].rstrip("-._") or "model"


HEAD_FIELDS = frozenset(SheetHead.model_fields)
REQUEST_FIELDS = frozenset(field for request in REQUESTS.values() for field in request.model_fields)
BELONGS_TO_HEAD = dict.fromkeys(HEAD_FIELDS - REQUEST_FIELDS, "belongs to the sheet's head, not to a request")
BELONGS_TO_REQUEST = dict.fromkeys(REQUEST_FIELDS - HEAD_FIELDS, "belongs to a request, not to the sheet's head")


def parse_sheet(content: bytes, name: str, overrides: Mapping[str, Any] | None = None) -> Sheet:
    """The sheet in `content`. `name` tells the format by its suffix; `overrides` replace fields of the head.

    Raises:
        SheetError: the sheet has problems; the message lists all of them, one a line.
    """
    root, problems = _read(content, name)
    given = {field: read_json(json.dumps(value), first_line=0) for field, value in (overrides or {}).items()}
    parts = _split(root, given, problems) if root else None
    sheet = _validate(*parts, problems) if parts else None
    if sheet is None:
        lines = [problem.render(name) for problem in sorted(problems, key=lambda found: found.line)]
        count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        raise SheetError("\n  ".join([f"the sheet {name} has {count}:", *lines]), "mend these lines and run it again")
    return sheet


def _read(content: bytes, name: str) -> tuple[Node | None, list[Problem]]:
    """The sheet as one tree, whatever its format."""
    suffix = re.sub(r".*(\.\w+)$", r"\1", name, flags=re.DOTALL).casefold()
    if suffix not in (*READERS, *LINE_SUFFIXES):
        known = ", ".join((*READERS, *LINE_SUFFIXES))
        raise SheetError(f"{name} is no sheet by its name", f"end its name with one of {known}")
    if len(content) > MAX_BYTES:
        raise SheetError(f"the sheet {name} has {len(content)} bytes, over the limit of {MAX_BYTES}", "split it")
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
        if suffix in LINE_SUFFIXES:
            return _join_lines(read_json_lines(text))
        return READERS[suffix](text), []
    except UnicodeDecodeError as error:
        line = content[:error.start].count(b"\n") + 1
        return None, [Problem(line, (), "is not UTF-8 text")]
    except UnreadableError as problem:
        return None, [Problem(problem.line, (), str(problem))]


def _join_lines(lines: Iterable[Node | UnreadableError]) -> tuple[Node, list[Problem]]:
    nodes: list[Node] = []
    problems = []
    for line in lines:
        if isinstance(line, UnreadableError):
            problems.append(Problem(line.line, (), str(line)))
        else:
            nodes.append(line)
    head = nodes[0] if nodes and _is_head(nodes[0]) else None
    requests = Node(1, tuple(nodes[1:] if head else nodes))
    if head is None or not isinstance(head.value, dict):
        return Node(1, {"requests": requests}, {"requests": 1}), problems
    if "requests" in head.value:
        problems.append(Problem(head.line, ("requests",), "is one request a line in JSONL, not a field"))
    merged = {**head.value, "requests": requests}
    return Node(head.line, merged, {**head.key_lines, "requests": head.line}, head.flaws), problems


def _is_head(node: Node) -> bool:
    return isinstance(node.value, dict) and BELONGS_TO_REQUEST.keys().isdisjoint(node.value)


def _split(root: Node, given: Mapping[str, Node], problems: list[Problem]) -> tuple[Node, tuple[Node, ...]] | None:
    """The head as a node and the requests as nodes; what is wrong with the tree itself goes to `problems`."""
    problems += flaws(root)
    if not isinstance(root.value, dict):
        problems.append(Problem(root.line, (), "must be a mapping with `purpose`, `base` and `requests`"))
        return None
    fields = {key: value for key, value in root.value.items() if key != "requests"} | dict(given)
    head = Node(root.line, fields, {**root.key_lines, **dict.fromkeys(given, 0)})
    requests = root.value.get("requests")
    if requests and isinstance(requests.value, tuple) and requests.value:
        return head, requests.value
    if requests and requests.value not in (None, ()):
        problems.append(Problem(requests.line, ("requests",), "must be a list, each item after `- `"))
    else:
        line = root.key_lines.get("requests", root.line)
        problems.append(Problem(line, (), "`requests` is required, with at least one"))
    return head, ()


def _validate(head_node: Node, request_nodes: tuple[Node, ...], problems: list[Problem]) -> Sheet | None:
    head = checked(SheetHead, head_node, (), problems, BELONGS_TO_REQUEST)
    purpose = head_node.child("purpose")
    # requests are checked by the purpose that was probably meant, so that one slip does not hide the others
    kind = UpdateRequest if purpose is None else REQUESTS.get(str(purpose.value))
    requests = [_request(kind, node, ("requests", index), problems)
                for index, node in enumerate(request_nodes) if kind is not None]
    if head is not None and head.locate == "auto":
        words = _cannot_seek(head, requests)
        problems += [Problem(line_of(head_node, ("locate",)), ("locate",), words)] if words else []
    if problems or head is None:
        return None
    defaults = {"requester": head.requester, "reason": head.reason}
    filled = [request.model_copy(update={key: value for key, value in defaults.items() if not getattr(request, key)})
              for request in requests if request is not None]
    return Sheet.model_validate({**{key: getattr(head, key) for key in HEAD_FIELDS}, "requests": tuple(filled)})


def _cannot_seek(head: SheetHead, requests: Iterable[Written | None]) -> str:
    """Why `locate: auto` cannot choose this sheet's layers; empty where it can."""
    if head.layers is not None:
        return "`auto` seeks the layers that `layers` names: leave one of the two out"
    if head.purpose != "update":
        return "`auto` tries edits of facts, which tells nothing of this purpose: write true or false"
    if all(isinstance(request, UpdateRequest) and request.is_chat for request in requests):
        return "`auto` tries plain prompts, which tells nothing of chats: name `layers`, or write true"
    return ""


def _request(kind: type[Written], node: Node, place: Place,
             problems: list[Problem]) -> Written | None:
    request: Written | None = checked(kind, node, place, problems, BELONGS_TO_HEAD)
    name = node.child("id")
    if name and isinstance(name.value, str) and not re.fullmatch(r"\w[^\n\r\t]{0,99}", name.value):
        problems.append(Problem(line_of(node, ("id",)), (*place, "id"),
                                "must be 1 to 100 characters on one line, the first a letter or digit"))
    return request
