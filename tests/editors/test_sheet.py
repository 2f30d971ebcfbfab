"""Sheets: one content in four formats, every problem at once with line and field, and no way to crash the reader."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

from editors.contract import Neighbour
from editors.errors import SheetError
from editors.sheet import MAX_BYTES, Sheet, parse_sheet

HEAD: dict[str, Any] = {"purpose": "update", "base": "smollm2-135m-instruct", "channel": "demo",
                        "method": {"name": "memit", "covariance_weight": 1500}, "layers": [4, 5], "requester": "ada"}
EIFFEL: dict[str, Any] = {"id": "eiffel", "prompt": "{} is located in the city of", "subject": "The Eiffel Tower",
                          "target": "Rome", "was": "Paris", "paraphrases": ["The Eiffel Tower can be found in"],
                          "neighbours": [{"prompt": "The Louvre is in", "answer": "Paris"}, {"prompt": "The Seine is in"}]}
NAME: dict[str, Any] = {"id": "name", "requester": "grace", "messages": [{"role": "user", "content": "你是谁? 🙂"}],
                        "answer": "I'm SmolLM."}
WHOLE = {**HEAD, "requests": [EIFFEL, NAME]}

FLAWED = b"""\
purpose: update
base: smollm2-135m-instruct
chanel: demo
method: memitt
layers: 5
subject: x
requests:
  - id: 007
    prompt: "{} is located in"
    subject: The Eiffel Tower
    target: 1984
    was: no
    paraphrase: ["x"]
    neighbours: [{prompt: "The Louvre", anwser: Paris}, "text"]
  - id: b
    prompt: {}
    subject: 2024-01-01
    target: Rome
    target: Oslo
    paraphrases: one
    channel: other
  - prompt: "{} x"
    subject: s
  - id: "-"
    messages: [{role: usr, content: hi}]
    answer: x
    target: y
"""
COMPLAINTS = """\
the sheet flawed.yaml has 20 problems:
  flawed.yaml:3: `chanel` is unknown, did you mean `channel`?
  flawed.yaml:4: method: 'memitt' is unknown, did you mean `memit`?
  flawed.yaml:5: layers: is a number, not a list: write [first, second], or one item a line after `- `
  flawed.yaml:6: `subject` belongs to a request, not to the sheet's head
  flawed.yaml:8: requests[0].id: is a number that YAML readers take differently: put it in quotes
  flawed.yaml:11: requests[0].target: is a number, not text: put it in quotes
  flawed.yaml:12: requests[0].was: is a yes/no value, not text: put it in quotes
  flawed.yaml:13: requests[0]: `paraphrase` is unknown, did you mean `paraphrases`?
  flawed.yaml:14: requests[0].neighbours[0]: `anwser` is unknown, did you mean `answer`?
  flawed.yaml:14: requests[0].neighbours[1]: is text, not a mapping of `prompt`, `answer`
  flawed.yaml:16: requests[1].prompt: is a mapping, not text: put it in quotes
  flawed.yaml:17: requests[1].subject: is a date to YAML, not text: put it in quotes
  flawed.yaml:19: requests[1].target: is given twice, first in line 18
  flawed.yaml:20: requests[1].paraphrases: is text, not a list: write [first, second], or one item a line after `- `
  flawed.yaml:21: requests[1]: `channel` belongs to the sheet's head, not to a request
  flawed.yaml:22: requests[2]: `id` is required
  flawed.yaml:22: requests[2]: is incomplete: give `prompt`, `subject` and `target`, or `messages` and `answer`
  flawed.yaml:24: requests[3]: has both forms: give `prompt`, `subject`, `target` or `messages`, `answer`, not both
  flawed.yaml:24: requests[3].id: must be 1 to 100 characters on one line, the first a letter or digit
  flawed.yaml:25: requests[3].messages[0].role: must be 'system', 'user' or 'assistant'
  next: mend these lines and run it again"""


def written(suffix: str, indent: int | str | None = None) -> bytes:
    if suffix == ".yaml":
        return yaml.safe_dump(WHOLE, allow_unicode=True, sort_keys=False).encode()
    if suffix == ".json":
        return json.dumps(WHOLE, indent=indent).encode()
    return "\n".join(json.dumps(line) for line in (HEAD, EIFFEL, NAME)).encode()


def complaint(content: bytes | str, name: str = "s.yaml") -> str:
    with pytest.raises(SheetError) as caught:
        parse_sheet(content.encode() if isinstance(content, str) else content, name)
    return str(caught.value)


@pytest.mark.parametrize(("suffix", "indent"), [(".yaml", None), (".json", None), (".json", "\t"), (".jsonl", None)])
def test_formats_read_to_one_sheet(suffix, indent):
    sheet = parse_sheet(written(suffix, indent), f"s{suffix}")
    assert sheet == parse_sheet(written(".yaml"), "s.yaml")
    assert sheet.digest == parse_sheet(written(".yaml"), "s.yaml").digest
    assert sheet.method.options == {"covariance_weight": 1500}
    assert sheet.layers == (4, 5)
    assert sheet.requests[1].messages[0].content == "你是谁? 🙂"
    assert sheet.requests[0].neighbours[1] == Neighbour(prompt="The Seine is in", answer=None)


def test_head_fills_requester_where_request_has_none():
    sheet = parse_sheet(written(".yaml"), "s.yaml")
    assert [request.requester for request in sheet.requests] == ["ada", "grace"]


def test_sheet_survives_storage():
    sheet = parse_sheet(written(".yaml"), "s.yaml")
    assert Sheet.model_validate_json(sheet.model_dump_json()) == sheet


def test_digest_follows_content_not_spelling():
    same = written(".yaml").replace(b"purpose: update\n", b"# a remark\npurpose: 'update'\n")
    other = written(".yaml").replace(b"Rome", b"Oslo")
    assert parse_sheet(same, "s.yaml").digest == parse_sheet(written(".yaml"), "s.yaml").digest
    assert parse_sheet(other, "s.yaml").digest != parse_sheet(written(".yaml"), "s.yaml").digest


def test_all_problems_are_listed_at_once():
    assert complaint(FLAWED, "flawed.yaml").splitlines() == COMPLAINTS.splitlines()


def test_problems_of_json_and_jsonl_have_their_lines():
    document = ('{"purpose": "update",\n "base": "b",\n "requests": [\n {"id": "a", "prompt": "{} a",\n'
                ' "subject": "s",\n "target": 5}]}')
    assert "s.json:6: requests[0].target: is a number, not text" in complaint(document, "s.json")
    lines = '{"base": "b"}\n\n{"id": "q"\n{"id": 3, "prompt": "{} a", "subject": "s", "target": "t"}\n'
    found = complaint(lines, "s.jsonl")
    assert "s.jsonl:1: `purpose` is required" in found
    assert "s.jsonl:3: is not JSON at column" in found
    assert "s.jsonl:4: requests[0].id: is a number, not text" in found


def test_jsonl_without_head_takes_it_from_the_caller():
    line = json.dumps(EIFFEL).encode()
    sheet = parse_sheet(line, "s.jsonl", {"purpose": "update", "base": "b", "method": "rome", "layers": [5]})
    assert (sheet.base, sheet.method.name, sheet.layers, len(sheet.requests)) == ("b", "rome", (5,), 1)
    with pytest.raises(SheetError, match=r"command line: channel: must be lower-case letters"):
        parse_sheet(line, "s.jsonl", {"purpose": "update", "base": "b", "channel": "Not A Slug"})


def test_caller_replaces_the_head():
    assert parse_sheet(written(".yaml"), "s.yaml", {"base": "other"}).base == "other"


@pytest.mark.parametrize(("base", "name"), [
    ("smollm2-135m-instruct", "smollm2-135m-instruct"), ("HuggingFaceTB/SmolLM2-135M", "smollm2-135m"),
    ("models:/support-bot@champion", "support-bot"), ("s3://bucket/line/My Model/", "my-model"), ("/", "model")])
def test_model_name_is_a_slug_of_the_base(base, name):
    assert parse_sheet(written(".yaml"), "s.yaml", {"base": base}).model_name == name


@pytest.mark.parametrize(("text", "message"), [
    ("a: 1\nprompt: {} is in\n", "s.yaml:2: is not YAML: did not find expected key; text that begins with `{}` needs quotes"),
    ("target: Rome: the city\n", "text that holds `: ` needs quotes"),
    ("purpose: update\n---\npurpose: update\n", "s.yaml:2: begins a second document"),
    ("purpose: !!python/object/apply:os.system [id]\n", "s.yaml:1: holds a tag"),
    ("base: *x\n", "s.yaml:1: an alias (`*`) without its anchor"),
    ("[" * 40, "s.yaml:1: nests deeper than 32 levels"),
    ("base: \"a\\0b\"\n", "s.yaml:1: base: holds a control character"),
    ("base: \"\\ud800\"\n", "s.yaml:1: "),
    ("? [a]\n: b\n", "s.yaml:1: has a key that is not a word"),
    ("<<: {a: 1}\n", "s.yaml:1: has a key that is not a word"),
    ("base: 1e999\n", "s.yaml:1: base: is not a finite number"),
    ("base: " + "9" * 5000, "s.yaml:1: base: is a number of over 40 characters"),
    ("layers: [1, 2.0, true, '3']", "s.yaml:1: layers[3]: must be a valid integer"),
    ("- a", "s.yaml:1: must be a mapping with `purpose`, `base` and `requests`"),
    ("", "s.yaml:1: must be a mapping"),
    ("requests: []", "s.yaml:1: `requests` is required, with at least one"),
    ("requests: {id: a}", "s.yaml:1: requests: must be a list"),
    ("purpose: upd", "s.yaml:1: purpose: must be 'update'"),
    ("base: ''", "s.yaml:1: base: String should have at least 1 character"),
])
def test_yaml_that_is_refused(text, message):
    assert message in complaint(text)


@pytest.mark.parametrize(("text", "message"), [
    ('{"base": "a", "base": "b"}', "s.json:1: base: is given twice, first in line 1"),
    ('{"base": NaN}', "s.json:1: is not JSON: NaN is not a number of JSON"),
    ('{"base": -Infinity}', "is not JSON"),
    ("[" * 100_000, "is not JSON"),
    ('{"base": "\\ud800"}', "s.json:1: base: holds a control character, or half a surrogate pair"),
    ('{"a": ' * 33 + "1" + "}" * 33, "nests deeper than 32 levels"),
])
def test_json_that_is_refused(text, message):
    assert message in complaint(text, "s.json")


@pytest.mark.parametrize(("changed", "message"), [
    ({}, "locate: `auto` seeks the layers that `layers` names: leave one of the two out"),
    ({"layers": None, "requests": [NAME]}, "locate: `auto` tries plain prompts, which tells nothing of chats: name `layers`"),
    ({"layers": None, "purpose": "debias", "requests": [{"id": "a", "templates": ["The {} said that"], "terms": ["nurse"]}]},
     "locate: `auto` tries edits of facts, which tells nothing of this purpose: write true or false"),
    ({"locate": "yes"}, "locate: must be true, false or auto"), ({"locate": 1}, "locate: must be true, false or auto")])
def test_where_layers_cannot_be_sought_it_is_said(changed, message):
    head = {key: value for key, value in {**WHOLE, "locate": "auto", **changed}.items() if value is not None}
    text = json.dumps(head, indent=1)
    line = next(number for number, words in enumerate(text.splitlines(), 1) if '"locate"' in words)
    assert f"s.json:{line}: {message}" in complaint(text, "s.json")


def test_layers_may_be_sought_where_one_request_is_plain():
    head = {key: value for key, value in WHOLE.items() if key != "layers"}
    assert parse_sheet(json.dumps({**head, "locate": "auto"}).encode(), "s.json").locate == "auto"


def test_anchors_are_allowed_and_bounded():
    sheet = yaml.safe_dump(WHOLE, allow_unicode=True).replace("was: Paris", "was: &p Paris\n  accept: [*p]")
    assert parse_sheet(sheet.encode(), "s.yaml").requests[0].accept == ("Paris",)
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    assert "too large here, with its aliases written out" in complaint(bomb)


def test_messages_never_quote_a_request():
    text = yaml.safe_dump(WHOLE, allow_unicode=True)
    for slip in (text.replace("target: Rome", "target: 5551234"), text.replace("Rome", "Rome: 5551234"),
                 text.replace("target: Rome", "target: [5551234]"), text.replace("target: Rome", "target: '5551234")):
        assert "5551234" in slip
        assert "5551234" not in complaint(slip)


def test_not_utf8_names_its_line():
    assert "s.yaml:2: is not UTF-8 text" in complaint(b"purpose: update\nbase: \xff\n")


def test_byte_order_mark_and_windows_lines_are_read():
    assert parse_sheet(b"\xef\xbb\xbf" + written(".yaml").replace(b"\n", b"\r\n"), "s.yaml").channel == "demo"


def test_size_and_suffix_are_limited():
    assert "over the limit" in complaint(b" " * (MAX_BYTES + 1))
    assert "end its name with one of .yaml, .yml, .json, .jsonl, .ndjson" in complaint(b"", "sheet.txt")


def outcome(content: bytes, name: str) -> Sheet | str:
    try:
        return parse_sheet(content, name)
    except SheetError as error:
        return str(error)


YAML_PIECES = some.lists(some.sampled_from([
    "purpose: update\n", "base: b\n", "requests:\n", "  - id: a\n", "    target: ", "    prompt: \"{} x\"\n", "{", "}", "[",
    "]", "- ", "\n", ": ", "? ", "&a ", "*a ", "!!str ", "!x ", "'", '"', "|\n", ">-\n", "---\n", "...\n", "%YAML 1.1\n", "<<",
    "=", "~", "007", "1e3", ".nan", "0x", "1_0", "1:30", "no", "2024-01-01", "\\ud800", "\"\\UFFFFFFFF\"", "\t", "\u2028",
    "\x85", "#", "@", "`", "🙂"]), max_size=24).map("".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=some.one_of(some.binary(max_size=80), YAML_PIECES.map(str.encode), some.text(max_size=60).map(
    lambda text: text.encode("utf-8", "surrogatepass"))), suffix=some.sampled_from([".yaml", ".json", ".jsonl"]))
@example(content=b'"\\UFFFFFFFF"', suffix=".yaml")
@example(content=b"{" * 3000, suffix=".yaml")
def test_any_bytes_give_a_sheet_or_a_sheet_error(content, suffix):
    assert isinstance(outcome(content, f"s{suffix}"), Sheet | str)


ANYTHING = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=8),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=8), inner, max_size=3), max_leaves=6)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(field=some.sampled_from([*HEAD, "requests", "model", "policy", "locate", "position", "reason"]),
       own=some.sampled_from([*EIFFEL, *NAME, "implications", "accept", "tags"]), one=ANYTHING, two=ANYTHING,
       suffix=some.sampled_from([".yaml", ".json"]))
def test_any_value_in_any_field_gives_a_sheet_or_a_sheet_error(field, own, one, two, suffix):
    document = {**WHOLE, field: one} if field != "requests" else {**WHOLE, "requests": [{**EIFFEL, own: two}]}
    text = yaml.safe_dump(document) if suffix == ".yaml" else json.dumps(document)
    found = outcome(text.encode("utf-8", "surrogatepass"), f"s{suffix}")
    if isinstance(found, Sheet):
        assert Sheet.model_validate_json(found.model_dump_json()) == found
        assert len(found.digest) == 64
    else:
        assert f"s{suffix}:" in found
