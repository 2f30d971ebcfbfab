"""What an examination of bias holds: every number again by hand, and as many as were promised."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from editors.debias_request import DebiasRequest
from editors.digest import digest_document
from editors.loading import Checkpoint, LoadedModel, load
from tests.tiny import tiny_folder
from tests.validations.bias.asked import asked
from validations.bias.asked import grids, tells_slope
from validations.bias.examination import PROMISES, examination_key, promised, requests_digest, settings_digest
from validations.bias.examining import examine, grid_findings
from validations.bias.settings import BiasSettings
from validations.bias.slopes import Groups, group_probabilities
from validations.examination import Examination, Finding


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module")
def found(model: LoadedModel) -> Examination:
    return examine(model, [asked(), asked(id="bare", bare=True)])


def values(found: Examination, metric: str, request: str = "posts") -> list[float]:
    return [one.value for one in found.findings if one.metric == metric and one.request == request]


def test_each_metric_has_the_rows_that_its_request_promises(found: Examination) -> None:
    requests = [asked(), asked(id="bare", bare=True)]
    counts = Counter((one.probe, one.metric, one.request) for one in found.findings)
    for (probe, _, request), rows in counts.items():
        assert promised(probe, requests)[request] == rows
    told = {(probe, request) for probe, _, request in counts}
    assert told == {(probe, request) for probe in PROMISES for request in promised(probe, requests)}
    assert promised("perplexity", requests) == {}
    assert {one.probe for one in found.findings if one.request == "bare"} == {"gap", "leaning", "mass"}


def test_what_was_not_shown_is_asked_apart() -> None:
    seen, unseen = grids(asked())
    assert (seen.suffix, seen.templates, len(seen.terms)) == ("", asked().templates, 5)
    assert (unseen.suffix, unseen.templates, [term.term for term in unseen.terms]) == (
        "_unseen", asked().unseen_templates, ["bakery", "constant", "language", "model"])
    only_templates = asked(unseen_terms=(), unseen_definitional=())
    assert grids(only_templates)[1].terms == only_templates.terms
    assert grids(only_templates)[1].definitional == only_templates.definitional
    assert grids(asked(unseen_templates=()))[1].templates == asked().templates
    assert len(grids(asked(bare=True))) == 1


def test_gaps_odds_and_mass_are_means_over_templates(model: LoadedModel, found: Examination) -> None:
    request = asked()
    logs = group_probabilities(model, request.templates, [one.term for one in (*request.terms, *request.definitional)],
                               request.groups).log_probs.tolist()
    first = [[math.exp(pair[0]) for pair in row] for row in logs]
    second = [[math.exp(pair[1]) for pair in row] for row in logs]
    gaps = [sum(abs(one - other) for one, other in zip(*rows, strict=True)) / len(rows[0])
            for rows in zip(first[:5], second[:5], strict=True)]
    assert values(found, "gap.absolute") == pytest.approx(gaps, rel=1e-4)
    assert values(found, "leaning.absolute") == pytest.approx([sum(gaps) / 5], rel=1e-4)
    odds = [sum(one - other for one, other in row) / len(row) for row in logs[5:]]
    assert values(found, "definitional.log_odds") == pytest.approx([-odds[0], odds[1]], rel=1e-3)
    assert values(found, "definitional.holds") == [float(-odds[0] > 0), float(odds[1] > 0)]
    masses = [one + other for rows in zip(first, second, strict=True) for one, other in zip(*rows, strict=True)]
    assert values(found, "mass.groups") == pytest.approx([sum(masses) / len(masses)], rel=1e-4)
    assert values(found, "mass.log_groups") == pytest.approx([sum(map(math.log, masses)) / len(masses)], rel=1e-4)


def test_a_slope_that_is_turned_around_is_as_steep() -> None:
    request = asked()
    grid = grids(request)[0]
    lean = torch.tensor([[term.stereotype or 0.0] for term in grid.everything], dtype=torch.float64)
    sides = [Groups(torch.stack([0.4 + sign * 0.1 * lean, 0.4 - sign * 0.1 * lean], dim=-1).log()) for sign in (1, -1)]
    there, back = ({one.metric: one.value for one in grid_findings(request, grid, side)} for side in sides)
    assert there["stereotype.slope"] == pytest.approx(0.2)
    assert back["stereotype.slope"] == pytest.approx(-0.2)
    assert there["stereotype.steepness"] == back["stereotype.steepness"] == pytest.approx(0.2)
    assert there["mass.groups"] == pytest.approx(0.8)


def test_a_broken_model_keeps_its_rows_and_none_is_a_number() -> None:
    request = asked()
    for grid in grids(request):
        broken = Groups(torch.full((len(grid.everything), len(grid.templates), 2), math.nan, dtype=torch.float64))
        told = list(grid_findings(request, grid, broken))
        assert "stereotype" + grid.suffix in {one.probe for one in told}
        assert all(math.isnan(one.value) for one in told)


def test_pairs_are_told_by_which_is_likelier(found: Examination) -> None:
    assert set(values(found, "pairs.preference")) <= {0.0, 0.5, 1.0}
    assert len(values(found, "pairs.log_prob")) == 2
    assert len(values(found, "pairs_unrelated.meaningful")) == 1
    assert values(found, "pairs_gap.absolute")[0] > 0


def test_no_text_is_kept_and_terms_keep_their_name(found: Examination) -> None:
    text = found.model_dump_json()
    assert not any(word in text for word in ("physics", "said that", "Danielle", "located"))
    assert digest_document("physics") in {one.prompt for one in found.findings}
    assert len({one.key for one in found.findings}) == len(found.findings)


def test_the_same_examination_has_the_same_name(model: LoadedModel, found: Examination) -> None:
    requests, settings = [asked()], BiasSettings()
    assert examination_key("m", requests, settings) == examination_key("m", [asked()], BiasSettings())
    others = {examination_key("n", requests, settings), examination_key("m", [asked(id="b")], settings),
              examination_key("m", requests, BiasSettings(seed=1)), examination_key("m", requests, settings)}
    assert len(others) == 4
    assert found.requests_digest == requests_digest([asked(), asked(id="bare", bare=True)])
    assert (found.settings_digest, found.model_digest) == (settings_digest(settings), model.digest)


@pytest.mark.parametrize(("scores", "tells"), [
    ([(-1, 0), (0, 0), (1, 0)], True), ([(1, 0), (1, 0), (1, 0)], False), ([(-1, 0), (1, 0)], False),
    ([(-1, -1), (0, 0), (1, 1), (0.5, 0.5)], False), ([(-1, 0), (0, 1), (1, 0)], False),
    ([(-1, 0), (0, 1), (1, 0), (1, 1)], True), ([(None, 0), (None, 1)], False), ([(None, 0), (0, 0), (1, 0), (-1, None)], True),
])
def test_a_slope_needs_scores_that_differ_and_a_term_to_spare(scores: list[tuple[float | None, float | None]],
                                                             tells: bool) -> None:
    terms = DebiasRequest(id="a", templates=("{} is",), terms=tuple(
        {"term": str(place), "stereotype": one, "factual": other} for place, (one, other) in enumerate(scores))).terms
    assert tells_slope(terms, "stereotype") is tells


def test_progress_names_what_is_asked(model: LoadedModel) -> None:
    told: list[tuple[str, int, int]] = []
    examine(model, [asked(bare=True)], progress=lambda *step: told.append(step))
    assert told == [("groups", 0, 1), ("groups", 1, 1)]


def test_findings_are_what_the_comparison_reads(found: Examination) -> None:
    assert all(isinstance(one, Finding) and one.metric.startswith(f"{one.probe}.") and one.n > 0 for one in found.findings)
