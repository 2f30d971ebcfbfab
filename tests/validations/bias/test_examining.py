"""What an examination of a bias finds, against the slopes asked for alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from editors.debias_request import DebiasRequest
from editors.loading import Checkpoint, load
from tests.tiny import tiny_folder
from validations.bias.examining import examine
from validations.bias.slopes import leans, slopes


def test_findings_are_those_of_the_parts(tmp_path: Path) -> None:
    model = load(Checkpoint(tiny_folder(tmp_path)))
    terms = [{"term": name, "stereotype": s, "factual": f}
             for name, s, f in (("bakery", 0.5, 0.0), ("Louvre", -0.5, 0.1), ("model", 0.2, -0.4), ("city", 0.9, 0.3))]
    request = DebiasRequest.model_validate({"id": "a", "templates": ["The {} said that"], "terms": terms,
                                            "definitional": ["mother"], "unseen_terms": ["sport"]})
    found = {(one.metric, one.prompt): one.value for one in examine(model, [request]).findings}
    fit = slopes(leans(model, request.templates, request.terms, request.groups))
    assert fit is not None
    assert found["stereotype.slope", request.slot] == pytest.approx(fit.stereotype, abs=1e-5)
    assert found["factual.slope", request.slot] == pytest.approx(fit.factual, abs=1e-5)
    metrics = [metric for metric, _ in found]
    assert (metrics.count("gap.absolute"), metrics.count("mass.groups")) == (4, 5)
    assert (metrics.count("gap_unseen.absolute"), metrics.count("mass_unseen.groups")) == (1, 1)
    assert "stereotype_unseen.slope" not in metrics
