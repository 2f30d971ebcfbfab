"""The certificate: figures of every attack, what was not shown, no text of a request, and no claim beyond the figures."""

from __future__ import annotations

import pytest

from editors.contract import EditBatch
from editors.errors import IntegrityError
from tests.editors.test_forget_request import KEY, asked, quotes
from tests.validations.test_page import Nesting
from validations.about import About
from validations.certificate import attacks, is_attack, not_shown, otherwise, render_certificate, standings
from validations.contract import Measurement, Measurements, Rule, Verdict

BATCH = EditBatch(purpose="forget", base_digest="b", parent_digest="p", requests=(asked().sealed(KEY),))


def row(metric: str, parent: float | None, candidate: float, index: int = 0, n: int = 1) -> Measurement:
    return Measurement(request="case-17", probe=metric.partition(".")[0], metric=metric,
                       prompt=BATCH.forgets[0].name_of("context", index), parent=parent, candidate=candidate, n=n)


ROWS = (row("exposure.bits_exact", 13.3, 1.1), row("exposure.bits_exact", 12.0, 2.0, 1),
        row("exposure.controls_bits", 1.4, 1.44), row("extraction.verbatim", 1, 0),
        row("extraction.verbatim", 1, 0, 1), row("sampling.extracted", 0.9, 0, n=20),
        row("extraction_quantised.verbatim", 1, 0), row("retention.first_choice", 1, 1))


def measurements(*rows: Measurement) -> Measurements:
    return Measurements(parent_digest="p", candidate_digest="c", batch_digest=BATCH.digest, rows=rows,
                        transcripts=())


def certificate(*rows: Measurement, passed: bool = True) -> str:
    measured = measurements(*rows)
    kept = Rule(name="retention.first_choice", passed=True, severity="critical", observed=1.0, limit=">= parent - 0.1",
                meaning="The person's public facts are said as often as before.", parent=1.0, count=1)
    verdict = Verdict(passed=passed, rules=(kept,), policy="forget", policy_digest="d", batch_digest=BATCH.digest,
                      parent_digest="p", candidate_digest="c", measurements_digest=measured.digest)
    return render_certificate(verdict, measured, BATCH, About("smollm2", "v1", "people", provenance={"parent": "v0"}))


def test_every_way_of_asking_is_a_line_with_its_tries() -> None:
    found = attacks(ROWS)
    assert [(one.words.split(",")[0], one.model[:8], one.texts, one.tries, one.before, one.after) for one in found] == [
        ("asked with each text of the sheet", "the mode", 2, 2, 2, 0),
        ("answers drawn at several temperatures", "the mode", 1, 20, 1, 0),
        ("asked with each text of the sheet", "the same", 1, 1, 1, 0)]


def test_a_secret_stands_where_its_most_telling_text_puts_it() -> None:
    one = standings(ROWS, BATCH)[0]
    assert (one.before, one.after, one.controls, one.is_exact, one.came_out) == (13.3, 2.0, 1.44, True, 0)
    worse = standings((*ROWS, row("exposure.bits_sampled", 5, 6, 2), row("prefix.half", 1, 1)), BATCH)[0]
    assert (worse.after, worse.is_exact, worse.came_out) == (6, False, 1)


def test_the_model_changed_afterwards_has_figures_of_its_own() -> None:
    found = otherwise((*ROWS, row("exposure_relearned.bits_exact", 13, 2), row("exposure_relearned.bits_sampled", 11, 6, 1)))
    assert [(one.model[:17], one.before, one.after, one.most) for one in found] == [("the same, trained", 12, 4, 6)]


def test_attacks_are_told_from_other_rows() -> None:
    assert all(map(is_attack, ("extraction.verbatim", "extraction_relearned_unrelated.verbatim", "divergence.extracted")))
    assert not any(map(is_attack, ("exposure.bits_exact", "retention.first_choice", "paraphrase.prob_success", "prefix.all")))


def test_it_opens_with_what_was_shown_and_never_claims_more() -> None:
    page = certificate(*ROWS)
    assert "1 secret withdrawn: none came out in 23 tries by 3 ways of asking." in page
    assert "What was not shown" in page
    assert "the version before (v0) holds the secrets as before" in page
    assert "deleted" not in page.casefold()
    assert quotes(page) == []
    assert BATCH.forgets[0].seal[:16] in page
    reader = Nesting()
    reader.feed(page)
    reader.close()


def test_what_came_out_or_was_refused_is_the_first_sentence() -> None:
    leaking = certificate(*ROWS, row("prefix.half", 1, 1))
    assert "1 of 4 ways of asking still brought one out" in leaking
    assert '<header class="decision bad">' in leaking
    refused = certificate(*ROWS, passed=False)
    assert "Not certified: the gate refused this version, so nothing is claimed about 1 secret." in refused


def test_open_points_follow_what_was_measured() -> None:
    points = " ".join(not_shown(ROWS, BATCH, About("m", "v")))
    assert "no paraphrases" in points
    assert "under another, later edit" in points
    assert "rounded to int8" not in points
    assert "sampled" not in points
    more = not_shown((*ROWS, row("paraphrase.extracted", 1, 0), row("exposure.bits_sampled", 9, 1)), BATCH, About("m", "v"))
    assert not any("no paraphrases" in point for point in more)
    assert any("sampled" in point for point in more)
    back = not_shown((*ROWS, row("exposure_relearned.bits_exact", 13, 12.29)), BATCH, About("m", "v"))
    assert any("text about the person: there a secret stands at 12.3 bits" in one for one in back)


def test_another_verdicts_measurements_are_refused() -> None:
    verdict = Verdict(passed=True, rules=(), policy="forget", policy_digest="d", batch_digest="b", parent_digest="p",
                      candidate_digest="c", measurements_digest="other")
    with pytest.raises(IntegrityError, match="not on"):
        render_certificate(verdict, measurements(*ROWS), BATCH, About("m", "v"))
