"""zsRE's protocol on a record written out here."""

from __future__ import annotations

import json
from operator import eq
from pathlib import Path

import pytest
import torch

from benchmarks.answers import encode
from benchmarks.cases import Case
from benchmarks.zsre import case_of, zsre
from editors.loading import LoadedModel

RECORD = {
    "subject": "UniFirst", "src": "What is the product made by UniFirst?", "pred": "uniform",
    "rephrase": "What will be the product of UniFirst?", "alt": "unmanned aircraft", "answers": ["uniform"],
    "loc": "nq question: john goodman's character in the big lebowski", "loc_ans": "Walter Sobchak",
    "cond": "uniform >> unmanned aircraft || What is the product made by UniFirst?"}


def test_the_edit_is_to_the_alternative_and_the_subject_is_cut_out_of_the_question() -> None:
    assert case_of(RECORD, 3) == Case(
        "zsre-3", "What is the product made by {}?", "UniFirst", "unmanned aircraft", "uniform",
        ("What will be the product of UniFirst?",),
        (("nq question: john goodman's character in the big lebowski?", "Walter Sobchak"),))


def test_an_alternative_that_is_right_is_compared_with_another_answer() -> None:
    assert case_of({**RECORD, "answers": ["Unmanned aircraft", "towels"]}, 0).true == "towels"
    assert case_of({**RECORD, "answers": ["unmanned aircraft"]}, 0).true == "uniform"


def test_a_record_that_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ValueError, match="zsRE record 5: every answer is the new one, 'unmanned aircraft'"):
        case_of({**RECORD, "answers": ["unmanned aircraft"], "pred": "unmanned aircraft"}, 5)
    with pytest.raises(ValueError, match=r"zsRE record 5: the question .* does not hold its subject 'Cintas'"):
        case_of({**RECORD, "subject": "Cintas"}, 5)


def test_a_neighbour_is_kept_where_the_first_choice_is_what_it_was(model: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "zsre.json").write_text(json.dumps([RECORD, {**RECORD, "loc": "who are you", "loc_ans": "my name is light"}]))
    data = zsre(tmp_path / "zsre.json", (0, 1), model)
    assert [score.neighbourhood for score in data.score(model, data.cases)] == [1.0, 1.0]
    before = [choices(model, *case.neighbours[0]) for case in data.cases]
    weight = model.model.get_parameter(model.anatomy.mlp_output_parameter(2))
    clean = weight.detach().clone()
    with torch.no_grad():
        weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)), alpha=3.0)
    try:
        after = [choices(model, *case.neighbours[0]) for case in data.cases]
        shares = [sum(map(eq, was, now)) / len(was) for was, now in zip(before, after, strict=True)]
        assert [score.neighbourhood for score in data.score(model, data.cases)] == shares
        assert min(shares) < 1
    finally:
        with torch.no_grad():
            weight.copy_(clean)


def choices(model: LoadedModel, prompt: str, answer: str) -> list[int]:
    ids, start = encode(model, prompt, answer)
    with torch.no_grad():
        return model.model(torch.tensor([ids])).logits[0].argmax(-1)[start - 1:-1].tolist()
