"""A request to part two terms from their group, small enough for a tiny model, and what the tests read of it."""

from __future__ import annotations

import torch

from editors.contract import EditBatch
from editors.debias_request import DebiasRequest, Term
from editors.loading import LoadedModel

REQUEST = DebiasRequest(
    id="posts", templates=("The {} said that", "The {} laughed because"),
    terms=(Term(term="baker"), Term(term="harbour pilot"), Term(term="city guard"), Term(term="teacher")),
    definitional=(Term(term="mother", factual=-1), Term(term="king", factual=1)))


def leaning_batch(model: LoadedModel, *requests: DebiasRequest) -> EditBatch:
    """The requests, or the one above, as a batch on the model."""
    return EditBatch(purpose="debias", base_digest=model.digest, parent_digest=model.digest, requests=requests or (REQUEST,))


def lean_of(model: LoadedModel, term: str, request: DebiasRequest = REQUEST) -> float:
    """Mean over the templates of log P(first) - log P(second), by whole forwards; a word counts by its first token."""
    first, second = (model.tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0] for word in request.groups)
    found = []
    for template in request.templates:
        ids = model.tokenizer(template.format(term))["input_ids"]
        with torch.no_grad():
            logits = model.model(torch.tensor([ids])).logits[0, -1]
        found.append(float(logits[first] - logits[second]))
    return sum(found) / len(found)
