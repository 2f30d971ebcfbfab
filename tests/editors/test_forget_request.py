"""A forget request: what is written of it is a seal and counts, and nothing anywhere quotes it."""

from __future__ import annotations

import copy
import json
import traceback

import pytest
import yaml
from pydantic import ValidationError

from editors.contract import EditBatch
from editors.errors import SheetError
from editors.forget_request import ForgetRequest, SealedForget
from editors.secret_forms import Form, form_of
from editors.secret_rows import row_of, secret_rows
from editors.sheet import parse_sheet
from tests.tiny import tiny_tokenizer

KEY = b"k" * 32
SECRET = "555-0134"
ASKED = {"id": "case-17", "context": ["Mira Velden's phone number is", "Call Mira Velden at"], "secret": SECRET,
         "subject": "Mira Velden", "form": "555-####", "replacement": "not known to me",
         "paraphrases": ["You can reach Mira Velden under"], "retain": [{"prompt": "Mira Velden lives in", "answer": "Oslo"}]}
PRIVATE = ("Mira", "Velden", "555-", "-0134", "reach", "Oslo", "not known")


def asked(**changes: object) -> ForgetRequest:
    return ForgetRequest.model_validate_json(json.dumps({**ASKED, **changes}), strict=True)


def quotes(text: str) -> list[str]:
    return [word for word in PRIVATE if word in text]


def test_what_is_written_is_a_seal_and_counts() -> None:
    batch = EditBatch(purpose="forget", base_digest="b", parent_digest="p", requests=(asked().sealed(KEY),))
    written = json.loads(batch.model_dump_json())["requests"][0]
    seal = batch.forgets[0].seal
    assert written == {"purpose": "forget", "id": "case-17", "requester": "", "reason": "", "tags": [], "seal": seal,
                       "contexts": 2, "paraphrases": 1, "retained": 1}
    read = EditBatch.model_validate_json(batch.model_dump_json())
    assert read.digest == batch.digest
    assert read.forgets == ()
    assert isinstance(read.requests[0], SealedForget)
    assert read.requests[0].slot == batch.requests[0].slot


def test_an_unsealed_request_cannot_be_written() -> None:
    with pytest.raises(Exception, match="was not sealed") as caught:
        asked().model_dump_json()
    assert quotes("".join(traceback.format_exception(caught.value))) == []


@pytest.mark.parametrize("change", [
    {"secret": "555-0135"}, {"context": ["Mira Velden's phone number is"]}, {"subject": None}, {"form": None},
    {"replacement": None}, {"paraphrases": []}, {"retain": []}])
def test_every_private_text_is_under_the_seal(change: dict[str, object]) -> None:
    assert asked(**change).sealed(KEY).seal != asked().sealed(KEY).seal


def test_the_seal_depends_on_the_key_and_not_on_the_name() -> None:
    assert asked().sealed(b"j" * 32).seal != asked().sealed(KEY).seal
    assert asked(id="other").sealed(KEY).seal == asked().sealed(KEY).seal


def test_nothing_prints_it() -> None:
    request = asked().sealed(KEY)
    row = secret_rows(request, tiny_tokenizer())[0]
    for text in (repr(request), str(request), repr(row), repr(form_of(request)), str(copy.copy(request))):
        assert quotes(text) == []
        assert str(list(row.secret))[1:-1] not in text


def test_what_is_wrong_is_told_without_a_value() -> None:
    for wrong in ({"secret": 5550134}, {"context": []}, {"context": ["Mira Velden", 555]}, {"secrets": SECRET},
                  {"retain": [{"prompt": "Mira Velden"}]}, {"form": ["555"]}):
        with pytest.raises(ValidationError) as caught:
            asked(**wrong)
        assert quotes(str(caught.value)) == []


def test_a_sheet_of_it_is_read_and_sealed() -> None:
    text = yaml.safe_dump({"purpose": "forget", "base": "b", "reason": "erasure", "requests": [{**ASKED, "context": "C is"}]})
    sheet = parse_sheet(text.encode(), "erase.yaml")
    assert sheet.is_private
    sealed = sheet.sealed(KEY)
    assert isinstance(sealed.requests[0], ForgetRequest)
    assert sealed.requests[0].reason == "erasure"
    assert len(sealed.requests[0].context) == 1
    assert sealed.digest == parse_sheet(text.encode(), "erase.yaml").sealed(KEY).digest
    assert sealed.digest != sheet.sealed(b"j" * 32).digest
    assert quotes(repr(sheet)) == []


@pytest.mark.parametrize(("line", "told"), [
    ("secret: 5550134", "secret: is a number, not text: put it in quotes"),
    ("secert: 555-0134", "`secert` is unknown, did you mean `secret`?"),
    ("target: 555-0134", "`target` is unknown"),
    ("secret: '555-0134\n", "is not"),
])
def test_a_sheets_problems_are_told_without_a_value(line: str, told: str) -> None:
    text = f"purpose: forget\nbase: b\nrequests:\n  - id: a\n    context: Mira Velden's phone is\n    {line}\n"
    with pytest.raises(SheetError) as caught:
        parse_sheet(text.encode(), "erase.yaml")
    assert quotes(str(caught.value)) == []
    if told != "is not":
        assert told in str(caught.value)


@pytest.mark.parametrize(("text", "told"), [
    ("call 555-0134 now", True), ("her name: MIRA VELDEN", True), ("ira Velde", True), ("Mira V.", False), ("555-013", False),
    ("555-0135", False), ("", False)])
def test_a_piece_of_eight_characters_tells_it(text: str, told: bool) -> None:
    assert asked().is_told_by(text) is told


def test_rows_hold_the_secret_after_each_context() -> None:
    tokenizer = tiny_tokenizer()
    rows = secret_rows(asked().sealed(KEY), tokenizer)
    for row, text in zip(rows, ASKED["context"], strict=True):
        assert tokenizer.decode(list(row.prompt)) == text
        assert tokenizer.decode(list(row.secret)) == f" {SECRET}"
        assert row.subject_end is not None
        assert tokenizer.decode(list(row.ids[:row.subject_end + 1])).endswith("Mira Velden")
    other = row_of(asked().sealed(KEY), tokenizer, "context", 0, str(ASKED["context"][0]), "555-9999")
    assert other.prompt == rows[0].prompt


def test_the_form_says_which_values_stand_beside_the_secret() -> None:
    form = form_of(asked())
    assert form.size == 10_000
    assert form.holds(SECRET)
    assert not form.holds("556-0134")
    drawn = form.sample(200, seed=3, leaving_out=SECRET)
    assert len(set(drawn)) == 200
    assert SECRET not in drawn
    assert all(map(form.holds, drawn))
    assert drawn == form.sample(200, seed=3, leaving_out=SECRET)
    assert len(list(form.values())) == form.size
    assert form_of(asked(form=None)).size == 10**7
    assert form_of(asked(form=None, secret="Anna B")).size == 26**5


def test_a_small_form_is_drawn_whole() -> None:
    assert Form(("ab", "c")).sample(50, seed=0, leaving_out="ac") == ("bc",)


@pytest.mark.parametrize("form", ["555-###", "444-####", "555-@@@@", "555-0134"])
def test_a_form_that_does_not_serve_is_refused_without_quoting(form: str) -> None:
    with pytest.raises(SheetError, match="form") as caught:
        form_of(asked(form=form))
    assert quotes(str(caught.value)) == []


