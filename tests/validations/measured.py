"""Measurements for tests of the gate: everything a good edit shows, each value open to being spoilt."""

from __future__ import annotations

from collections.abc import Mapping

from editors.contract import EditBatch, Implication, Neighbour, UpdateRequest
from validations.contract import Measurement, Measurements

GOOD: Mapping[str, tuple[float | None, float]] = {
    "integrity.finite": (None, 1.0),
    "integrity.undeclared_changed": (None, 0.0),
    "integrity.something_changed": (None, 1.0),
    "integrity.update_relative_norm": (None, 0.02),
    "integrity.cumulative_relative_norm": (None, 0.03),
    "integrity.cast_loss": (None, 0.0),
    "integrity.cast_noise": (None, 0.05),
    "integrity.foreign_change": (None, 0.0),
    "efficacy.prob_success": (0.0, 1.0),
    "efficacy.teacher_forced": (0.0, 1.0),
    "efficacy.generate_exact": (0.0, 1.0),
    "paraphrase.prob_success": (0.0, 1.0),
    "paraphrase.generate_exact": (0.0, 1.0),
    "portability.prob_success": (0.0, 0.0),
    "neighbourhood.prob_success": (1.0, 1.0),
    "neighbourhood.generate_exact": (1.0, 1.0),
    "locality.same_answer": (None, 1.0),
    "locality.kl": (None, 0.01),
    "perplexity.held_out": (20.0, 20.1),
    "fluency.ngram_entropy": (5.0, 5.0),
    "history.prob_success": (1.0, 1.0),
    "history.generate_exact": (1.0, 1.0),
}
"""Metric -> parent's and candidate's value."""
PROMPTS = {"paraphrase": 2, "neighbourhood": 2}


def request(name: str, **changes: object) -> UpdateRequest:
    """A plain request with two paraphrases, two neighbours and one implication."""
    fields: dict[str, object] = {
        "id": name, "prompt": "{} is located in the city of", "subject": f"The {name} tower", "target": "Rome",
        "was": "Paris", "paraphrases": (f"{name} can be found in", f"{name} lies in"),
        "neighbours": (Neighbour(prompt=f"near {name}", answer="Paris"), Neighbour(prompt=f"by {name}")),
        "implications": (Implication(prompt=f"{name} is in the country of", answer="Italy"),)}
    return UpdateRequest.model_validate(fields | changes)


def batch(*requests: UpdateRequest) -> EditBatch:
    """A batch on the parent `parent`."""
    return EditBatch(purpose="update", base_digest="base", parent_digest="parent",
                     requests=requests or (request("eiffel"), request("pisa")))


def measured(of: EditBatch, earlier: tuple[UpdateRequest, ...] = (), *, without: str = "",
             spoilt: Mapping[tuple[str, str], float] | None = None, **digests: str) -> Measurements:
    """A good edit's measurements.

    `without` leaves out a metric; `spoilt` sets the candidate's value of (metric, request), where the request `*` is all.
    """
    rows = []
    for metric, (parent, candidate) in GOOD.items():
        if metric == without:
            continue
        probe = metric.partition(".")[0]
        asked = earlier if probe == "history" else of.requests
        names = ["-"] if probe in ("integrity", "perplexity", "fluency") else [one.id for one in asked]
        for name in names:
            value = (spoilt or {}).get((metric, name), (spoilt or {}).get((metric, "*"), candidate))
            rows += [Measurement(request=name, probe=probe, metric=metric, prompt=f"{probe}-{number}", parent=parent,
                                 candidate=value) for number in range(PROMPTS.get(probe, 1))]
    named = {"parent_digest": "parent", "candidate_digest": "candidate", "batch_digest": of.digest} | digests
    return Measurements(rows=tuple(rows), transcripts=(), **named)
