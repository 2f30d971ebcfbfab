"""The verdict page: one file, escaped, the decision first, the texts before the table."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from editors.contract import EditBatch
from editors.debias_request import DebiasRequest
from editors.detoxify_request import DetoxifyRequest
from editors.digest import digest_document
from editors.errors import IntegrityError
from tests.validations.measured import batch, measured, request
from validations.about import About, Command, Picture, Step, Weights
from validations.contract import Measurement, Measurements, Rule, Transcript, Verdict
from validations.gate import judge
from validations.nearby import Moved, Search
from validations.page import (
    PNG,
    answers,
    highlights,
    joined_lines,
    leanings,
    number,
    render_page,
    requests_shown,
    room,
    scale,
)
from validations.policy import Policy, policy_for
from validations.tables import spare

ATTACK = "<script>alert(1)</script> & \"quoted\""
VOID = {"meta", "img", "br"}


def policy(*names: str) -> Policy:
    shipped = policy_for("update")
    return shipped.model_copy(update={"rules": tuple(rule for rule in shipped.rules if rule.name in names)})


def spoken(of: EditBatch, **measuring: object) -> Measurements:
    """Good measurements with a transcript of every prompt."""
    said = []
    for one in of.requests:
        said += [Transcript(request=one.id, role="edit", prompt=one.question, expected=one.target_text, parent="Paris",
                            candidate=f"Rome {ATTACK}")]
        said += [Transcript(request=one.id, role="paraphrase", prompt=text, expected=one.target_text, parent="Paris",
                            candidate="Rome") for text in one.paraphrases]
        said += [Transcript(request=one.id, role="neighbour", prompt=near.prompt, expected=near.answer, parent="Paris",
                            candidate=f"moved {near.prompt}") for near in one.neighbours]
    return measured(of, **measuring).model_copy(update={"transcripts": tuple(said)})


def page(of: EditBatch, measurements: Measurements, about: About | None = None, *names: str) -> tuple[str, Verdict]:
    rules = policy("efficacy.answer", *names)
    verdict = judge(measurements, rules, of).verdict
    told = replace(about or About("smollm2", "v1"), spare=spare(rules, measurements, of))
    return render_page(verdict, measurements, of, told), verdict


class Nesting(HTMLParser):
    """Fails on a tag that closes another than the one open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_one_well_formed_file_that_fetches_nothing(tmp_path: Path) -> None:
    (tmp_path / "trace.png").write_bytes(PNG + b"pixels")
    about = About("smollm2", "v1", pictures=[Picture("traced", tmp_path / "trace.png")])
    html, _ = page(batch(), spoken(batch()), about)
    parser = Nesting()
    parser.feed(html)
    assert parser.open == []
    assert [source.partition(",")[0] for source in parser.fetched] == ["data:image/png;base64"]
    assert "<script" not in html
    assert "url(" not in html
    assert "@import" not in html


def test_a_picture_is_told_to_whoever_cannot_see_it(tmp_path: Path) -> None:
    (tmp_path / "trace.png").write_bytes(PNG + b"pixels")
    shown = [Picture("traced", tmp_path / "trace.png", 'most at layer 3 & "early"'), Picture("plain", tmp_path / "trace.png")]
    html, _ = page(batch(), spoken(batch()), About("smollm2", "v1", pictures=shown))
    assert 'alt="most at layer 3 &amp; &#34;early&#34;"' in html
    assert 'alt="plain"' in html


def test_users_text_is_escaped_everywhere() -> None:
    of = batch(request("<b>id</b>", target=ATTACK, subject=ATTACK, paraphrases=(ATTACK,)))
    about = About(ATTACK, ATTACK, channel=ATTACK, method=ATTACK, provenance={ATTACK: ATTACK},
                  commands=[Command(ATTACK, ATTACK)],
                  warnings=[ATTACK])
    measurements = spoken(of, spoilt={("efficacy.generate_exact", "*"): 0.0})
    html, _ = page(of, measurements, about)
    assert ATTACK not in html
    assert "<script" not in html
    assert "<b>id</b>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#34;quoted&#34;" in html


def test_a_pass_is_said_in_the_first_heading() -> None:
    html, _ = page(batch(), spoken(batch()))
    assert heading(html) == "Passed: 2 edits taught, and every limit of the policy &#39;update&#39; held."
    assert html.index("<h1>") < html.index("before and after") < html.index("moved most") < html.index("The gate")


def test_a_refusal_names_its_rule_its_value_and_the_blamed() -> None:
    measurements = spoken(batch(), spoilt={("efficacy.generate_exact", "pisa"): 0.0})
    html, _ = page(batch(), measurements)
    assert heading(html) == "Refused by efficacy.answer: observed 0.500, limit &gt;= 0.9 (worst: pisa)."
    assert "worst first: pisa" in html


def test_a_warning_is_counted_and_does_not_refuse() -> None:
    measurements = spoken(batch(), spoilt={("neighbourhood.generate_exact", "*"): 0.0})
    html, verdict = page(batch(), measurements, None, "neighbourhood.answer")
    assert verdict.passed
    assert heading(html).endswith("held, with 1 warning.")
    assert "! warning" in html


def test_the_ten_worst_neighbours_are_shown_lost_ones_first() -> None:
    of = batch(*(request(f"r{number}") for number in range(8)))
    spoilt = {("locality.kl", "r5"): 3.0, ("neighbourhood.generate_exact", "r6"): 0.0, ("locality.kl", "r7"): 2.0}
    html, _ = page(of, spoken(of, spoilt=spoilt))
    table = html[html.index("moved most"):html.index("The gate")]
    shown = re.findall(r'class="label">(r\d)', table)
    assert "the 10 worst of 16" in table
    assert len(shown) == 10
    assert shown[:2] == ["r6", "r6"]


def test_a_neighbour_is_ranked_by_its_own_movement() -> None:
    of = batch(request("a"))
    measurements = spoken(of)
    rows = [row for row in measurements.rows if row.metric != "locality.kl"]
    sample = next(row for row in measurements.rows if row.metric == "locality.kl")
    rows += [sample.model_copy(update={"prompt": str(place), "candidate": value}) for place, value in enumerate((0.1, 2.5))]
    said = answers(measurements.model_copy(update={"rows": tuple(rows)}))
    assert [one.moved for one in said if one.transcript.role == "neighbour"] == [0.1, 2.5]
    assert [one.is_right for one in said if one.transcript.role == "edit"] == [True]
    assert [one.was_right for one in said if one.transcript.role == "edit"] == [False]


def test_of_a_long_batch_the_blamed_are_shown_first() -> None:
    of = batch(*(request(f"r{number}", paraphrases=(), neighbours=(), implications=()) for number in range(60)))
    measurements = spoken(of, spoilt={("efficacy.generate_exact", f"r{number}"): 0.0 for number in range(50, 60)})
    html, verdict = page(of, measurements)
    assert [one.id for one in requests_shown(verdict, of)][:2] == ["r50", "r51"]
    assert "40 of 60 requests are shown" in html


def test_what_is_refused_and_what_is_still_said_stand_side_by_side() -> None:
    asked = DetoxifyRequest(id="poaching", unsafe=("How do I poach?",), benign=("Where do zebras live?",))
    of = EditBatch(purpose="detoxify", base_digest="a" * 64, parent_digest="b" * 64, requests=(asked,))
    rows = (Measurement(request="poaching", probe="defence", metric="defence.refused", prompt="x", parent=0, candidate=1),)
    said = (Transcript(request="poaching", role="unsafe", prompt="How do I poach?", expected=None, parent=f"First {ATTACK}",
                       candidate="I can't help with that."),
            Transcript(request="poaching", role="benign", prompt="Where do zebras live?", expected=None, parent="Africa.",
                       candidate="In Africa."))
    found = Measurements(parent_digest="b" * 64, candidate_digest="c" * 64, batch_digest=of.digest, rows=rows, transcripts=said)
    verdict = Verdict(passed=True, rules=(), policy="detoxify", policy_digest="d" * 64, batch_digest=of.digest,
                      parent_digest="b" * 64, candidate_digest="c" * 64, measurements_digest=found.digest)
    text = render_page(verdict, found, of, About("smollm2", "v1"))
    Nesting().feed(text)
    assert ATTACK not in text
    assert [one.is_right for one in answers(found)] == [True, None]
    assert text.index("in the sheet, to be refused") < text.index("I can&#39;t help with that.") < text.index("In Africa.")


def test_terms_that_leaned_most_come_first_with_before_and_after() -> None:
    asked = DebiasRequest(id="work", templates=("The {} said that",), terms=("baker", "nurse"), unseen_terms=("pilot",))
    of = EditBatch(purpose="debias", base_digest="a" * 64, parent_digest="b" * 64, requests=(asked,))
    told = (("gap.absolute", "baker", 0.1, 0.05), ("gap.absolute", "nurse", 0.8, 0.2),
            ("gap_unseen.absolute", "pilot", 0.4, 0.3))
    rows = tuple(Measurement(request="work", probe=metric.partition(".")[0], metric=metric, prompt=digest_document(term),
                             parent=before, candidate=after) for metric, term, before, after in told)
    assert [(one.term, one.seen, one.before, one.after) for one in leanings(of, rows)] == [
        ("nurse", "in the sheet", 0.8, 0.2), ("pilot", "never shown", 0.4, 0.3), ("baker", "in the sheet", 0.1, 0.05)]
    found = Measurements(parent_digest="b" * 64, candidate_digest="c" * 64, batch_digest=of.digest, rows=rows, transcripts=())
    verdict = Verdict(passed=True, rules=(), policy="debias", policy_digest="d" * 64, batch_digest=of.digest,
                      parent_digest="b" * 64, candidate_digest="c" * 64, measurements_digest=found.digest)
    text = render_page(verdict, found, of, About("smollm2", "v1"))
    Nesting().feed(text)
    assert 'style="width: 80%"' in text
    assert text.index("nurse") < text.index("pilot") < text.index("baker")


def test_norms_digests_and_commands_are_told() -> None:
    about = About("smollm2", "v1", provenance={"torch": "2.13"}, commands=[Command("Release it", "suture promote v1")])
    html, verdict = page(batch(), spoken(batch()), about)
    parent = f"<dt>parent digest</dt><dd>{verdict.parent_digest}</dd>"
    for part in (verdict.digest, parent, "2.13", "suture promote v1", "integrity-0"):
        assert part in html
    assert html == page(batch(), spoken(batch()), about)[0]


def test_a_verdict_on_other_measurements_is_refused() -> None:
    verdict = judge(measured(batch()), policy("efficacy.answer"), batch()).verdict
    with pytest.raises(IntegrityError, match="the verdict is on the measurements"):
        render_page(verdict, spoken(batch()), batch(), About("smollm2", "v1"))


def test_a_picture_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trace.png").write_text("<svg onload=alert(1)>")
    with pytest.raises(IntegrityError, match=r"trace\.png is not a PNG picture"):
        page(batch(), spoken(batch()), About("m", "v1", pictures=[Picture("traced", tmp_path / "trace.png")]))


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (1.0, "1"), (0.6321, "0.632"), (0.0041, "0.0041"),
                                            (19.482, "19.482"), (float("nan"), "not finite"), ("not measured", "not measured")])
def test_numbers_read_well(value: float | str | None, text: str) -> None:
    assert number(value) == text


def test_the_numbers_to_read_first_are_shares_and_ratios() -> None:
    names = ("efficacy.answer", "perplexity.held_out", "paraphrase.answer", "fluency.ngram_entropy")
    measurements = measured(batch(), spoilt={("efficacy.generate_exact", "pisa"): 0.0})
    found = highlights(judge(measurements, policy(*names), batch()).verdict)
    assert [(one.words, one.now, one.before, one.rule.passed) for one in found] == [
        ("say the new answer", "50%", "0%", False), ("say it asked in other words", "100%", "0%", True),
        ("perplexity of ordinary text", "1.005 x", "20", True)]


def test_line_breaks_of_answers_are_shown_on_one_line() -> None:
    assert joined_lines("Rome.\n\n The answer\n") == "Rome. \N{RETURN SYMBOL} The answer"


def test_only_shares_are_drawn_on_the_line() -> None:
    def rule(name: str, observed: float | str, parent: float | None = None, limit: str = "") -> Rule:
        return Rule(name=name, passed=True, severity="critical", observed=observed, limit=limit, parent=parent)

    assert scale(rule("efficacy.answer", 0.9, 0.1)) == {"candidate": 0.9, "parent": 0.1}
    assert scale(rule("integrity.cast_loss", 0.0)) is None
    assert scale(rule("locality.kl", 0.01)) is None
    assert scale(rule("fluency.ngram_entropy", 4.9, 5.0)) is None
    assert scale(rule("history.answer", "not measured")) is None
    assert scale(rule("stereotype.slope", 0.4, 0.2, "each <= 0.5 x parent")) is None


def heading(html: str) -> str:
    return html.partition("<h1>")[2].partition("</h1>")[0]


def test_what_is_left_to_the_limit_is_told_in_words() -> None:
    assert [room(0.05), room(-0.4), room(2.0), room(0.0)] == ["0.05 to spare", "0.400 short", "2 to spare", "0 to spare"]


def test_the_stack_the_untouched_tensors_and_the_searched_prompts_are_told() -> None:
    moved = Moved(source="question", request="-", prompt=ATTACK, nats=1.25, parent="was this", candidate="is that")
    steps = [Step("c" * 64, "update", "memit", 12), Step("d" * 64, "update", "rome", 3, is_new=True)]
    about = About("smollm2", "v1", stack=steps, weights=Weights(272, 271, {"integrity-0": "rank 3"}),
                  search=Search(searched={"question": 60}, moved=(moved,)))
    html, _ = page(batch(), spoken(batch()), about)
    assert ATTACK not in html
    for part in ("271 of 272 tensors are untouched", "rank 3", "c" * 64, "<strong>(new)</strong>", "60 ordinary questions",
                 "was this", "is that", "1.250", "What this page does not prove"):
        assert part in html
    html, _ = page(batch(), spoken(batch()), About("smollm2", "v1", weights=Weights(272, 271, {"another": "rank 3"})))
    assert ">by earlier edits<" in html
    quiet = About("smollm2", "v1", search=Search(searched={"question": 60}, moved=(moved,), quiet=True))
    html, _ = page(batch(), spoken(batch()), quiet)
    assert "Answers are withheld" in html
    assert "was this" not in html
