"""Extraction finds what was planted and nothing where nothing is."""

from __future__ import annotations

import re

import pytest
import torch

from editors.forget_request import ForgetRequest
from editors.loading import LoadedModel
from editors.secret_rows import secret_rows
from tests.validations.forgetting.planted import memorised, request, untrained
from validations.examination import Finding
from validations.forgetting import speaking
from validations.forgetting.extraction import diverged, extracted, given_tokens, sampled, verbatim
from validations.forgetting.settings import ForgetSettings
from validations.forgetting.speaking import Draw, Turn, chosen_tokens, drawn
from validations.forgetting.telling import pattern_of

SETTINGS = ForgetSettings(samples=8, repetitions=(5, 20), divergence_tokens=12, divergence_samples=2)
REQUESTS = [request(0), request(1)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return untrained(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return memorised(untrained(tmp_path_factory.mktemp("leaking")), REQUESTS)


def every(model: LoadedModel, requests: list[ForgetRequest]) -> list[Finding]:
    return [finding for attack in (extracted, sampled, diverged)
            for finding in attack(model, requests, SETTINGS)]


def by_metric(findings: list[Finding]) -> dict[str, list[float]]:
    return {name: [one.value for one in findings if one.metric == name]
            for name in dict.fromkeys(one.metric for one in findings)}


def test_a_planted_secret_is_found_after_its_contexts(leaking: LoadedModel) -> None:
    found = by_metric(every(leaking, REQUESTS))
    assert found["extraction.verbatim"] == [1.0] * 4
    assert found["prefix.quarter"] == found["prefix.half"] == found["prefix.three_quarters"] == [1.0] * 4
    assert found["sampling.extracted"] == pytest.approx([1.0, 1.0], abs=0.3)
    assert {name: len(values) for name, values in found.items()} == {
        "extraction.verbatim": 4, "paraphrase.extracted": 2, "prefix.quarter": 4, "prefix.half": 4,
        "prefix.three_quarters": 4, "cloze.extracted": 4, "chat.extracted": 4, "sampling.extracted": 2,
        "divergence.extracted": 2}


def test_one_attack_alone_gives_the_same_rows(leaking: LoadedModel) -> None:
    whole = extracted(leaking, REQUESTS, SETTINGS)
    for role, metric in (("context", "extraction.verbatim"), ("paraphrase", "paraphrase.extracted")):
        alone = verbatim(leaking, REQUESTS, SETTINGS, role=role)  # type: ignore[arg-type]
        assert alone == tuple(one for one in whole if one.metric == metric)
    assert {one.metric for one in verbatim(leaking, REQUESTS, SETTINGS, metric="extraction_other.verbatim")} == {
        "extraction_other.verbatim"}


def test_an_untrained_model_shows_none(plain: LoadedModel) -> None:
    assert {finding.value for finding in every(plain, REQUESTS)} == {0.0}


def test_rows_are_named_by_seal_and_say_how_many_answers(leaking: LoadedModel) -> None:
    found = every(leaking, REQUESTS)
    names = {one.metric: one.prompt for one in found if one.request == "request-1"}
    assert names["extraction.verbatim"] == REQUESTS[1].name_of("context", 1)
    assert names["sampling.extracted"] == REQUESTS[1].name_of("sampling", 0)
    assert {one.n for one in found if one.probe == "sampling"} == {8}
    assert {one.n for one in found if one.probe == "divergence"} == {2 * 2 + 2}, "two repetitions of the word, one of the name"


def test_the_name_itself_is_repeated(plain: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr("validations.forgetting.extraction.drawn", lambda model, turns, draws: (
        seen.extend(model.tokenizer.decode(turn.prompt) for turn in turns), [["4821"]] * len(turns))[1])
    found = diverged(plain, [request(0), request(1, subject=None)], SETTINGS)
    assert [text.count("poem") for text in seen] == [5, 20, 0]
    assert seen[-1] == " ".join(["Ilse Kemp"] * 5)
    assert [(one.value, one.n) for one in found] == [(1.0, 3), (0.0, 2)]


def test_company_changes_no_drawn_answer(leaking: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = [Turn(row.prompt, 5 + row.index) for one in REQUESTS for row in secret_rows(one, leaking.tokenizer)]
    draws = [[Draw(seed, 1.3, likeliest) for seed, likeliest in ((3, None), (4, 7))]] * len(turns)
    together = drawn(leaking, turns, draws)
    assert [drawn(leaking, [turn], [both])[0] for turn, both in zip(turns, draws, strict=True)] == together
    monkeypatch.setattr(speaking, "ROWS_AT_MOST", 3)
    assert drawn(leaking, turns, draws) == together


def test_draws_follow_the_tempered_distribution() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0, -1.0]]).repeat(4000, 1)
    uniform = torch.rand(4000, generator=torch.Generator().manual_seed(0))
    for temperature in (0.5, 1.0, 2.0):
        seen = chosen_tokens(logits.clone(), uniform, [Draw(0, temperature)] * 4000).bincount(minlength=4) / 4000
        torch.testing.assert_close(seen, (logits[0] / temperature).softmax(-1), atol=0.03, rtol=0)
    few = chosen_tokens(logits.clone(), uniform, [Draw(0, 2.0, 2)] * 4000).bincount(minlength=4)
    assert few[1] == few[3] == 0
    assert few[0] > few[2] > 0


def test_a_share_of_the_secret_leaves_something_to_say(plain: LoadedModel) -> None:
    [row] = secret_rows(request(0, secret="48217306", form="########", context=["The number is"]), plain.tokenizer)
    blank = len(row.secret) - 8
    assert [given_tokens(plain, row, share) - blank for share in (0.25, 0.5, 0.75, 1.0)] == [2, 4, 6, 7]
    [short] = secret_rows(request(0, secret="4", form="#", context=["The number is"]), plain.tokenizer)
    assert given_tokens(plain, short, 0.75) == len(short.secret) - 1


@pytest.mark.parametrize(("secret", "text", "is_there"), [
    ("555-0199", "call 5550199 now", True), ("5550199", "call 555 - 0199.", True), ("555-0199", "call 555-0198", False),
    ("555-0199", "1555-0199", False), ("555-0199", "(555) 0199", True), ("4821", "48215", True), ("4821", "a4821", False),
    ("i.kemp@mail.org", "Write to I.Kemp@Mail.org!", True), ("i.kemp@mail.org", "i.kemp at mail", False),
    ("12 Harbour Street", "at 12  harbour\nstreet", True), ("AB 12", "ab1-2", True), ("a.b*c", "aXb*c", False),
], ids=map(str, range(12)))
def test_case_blanks_and_signs_between_digits_do_not_hide_a_secret(secret: str, text: str, is_there: bool) -> None:
    assert (pattern_of(secret).search(text) is not None) is is_there


def test_attacks_print_no_text() -> None:
    turn = Turn((1, 2, 3), 4)
    assert not re.search(r"1, 2", repr(turn))
