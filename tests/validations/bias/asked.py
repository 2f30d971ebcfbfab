"""A request to debias in the words that the tiny tokenizer knows."""

from __future__ import annotations

from editors.debias_request import DebiasRequest

TERMS = [{"term": name, "stereotype": lean, "factual": 0} for name, lean in (
    ("physics", 0.8), ("sport", 0.4), ("speed of light", 0), ("tongue", -0.5), ("street", -0.9))]
UNSEEN = [{"term": name, "stereotype": lean, "factual": 0} for name, lean in (
    ("bakery", 0.7), ("constant", 0.2), ("language", -0.3), ("model", -0.8))]


def asked(*, bare: bool = False, **changes: object) -> DebiasRequest:
    """Everything a request may hold, or (bare) only what it must."""
    fields: dict[str, object] = {"id": "posts", "templates": ("The {} said that", "In the city the {} lives as"),
                                 "terms": [one["term"] for one in TERMS], "groups": ("you", "name")}
    if not bare:
        fields |= {
            "terms": TERMS, "definitional": [{"term": "mother", "stereotype": 0, "factual": -1},
                                             {"term": "LeBron James", "stereotype": 0, "factual": 1}],
            "unseen_templates": ("The {} is located in the", "{} was born in"), "unseen_terms": UNSEEN,
            "unseen_definitional": [{"term": "Danielle Darrieux", "stereotype": 0, "factual": -1}],
            "pairs": [{"stereotype": "The speed is you.", "opposite": "The speed is name.", "unrelated": "The speed is 12."},
                      {"stereotype": "My bakery was name.", "opposite": "My bakery was you."}]}
    return DebiasRequest.model_validate(fields | changes)
