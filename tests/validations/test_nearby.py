"""Prompts beside an edit: which are searched, how far each moved by a whole-vocabulary count, and what is said there."""

from __future__ import annotations

import math

import pytest
import torch

from editors.loading import load
from editors.prompts import encode, render_text
from tests.validations.line import CHAT, EARLIER, PLAIN, Line
from tests.validations.measured import request
from validations.about import Weights
from validations.looking import look, speak
from validations.nearby import MOST_QUESTIONS, Nearby, View, beside, counted, divergence, spread, worst
from validations.observation import Likeliest
from validations.weights import changed_weights

PROMPTS = tuple(Nearby(source="opening", request="-", text=text) for text in (
    "The Louvre is in", "LeBron James plays", "In physics, the speed", "My telephone number is"))


@pytest.fixture(scope="module")
def views(line: Line) -> tuple[View, View]:
    return look(load(line.candidate), PROMPTS), look(load(line.parent), PROMPTS)


def distributions(line: Line, checkpoint: str) -> list[torch.Tensor]:
    model = load(getattr(line, checkpoint))
    texts = [render_text(PLAIN, model.tokenizer, one.text, None) for one in PROMPTS]
    with torch.no_grad():
        return [model.model(torch.tensor([encode(text, model.tokenizer).ids])).logits[0, -1].double().log_softmax(-1)
                for text in texts]


def test_the_divergence_is_the_whole_vocabularys_where_all_of_it_is_listed(line: Line, views: tuple[View, View]) -> None:
    after, before = views
    exact = [float((old.exp() * (old - new)).sum())
             for new, old in zip(distributions(line, "candidate"), distributions(line, "parent"), strict=True)]
    found = [divergence(*pair) for pair in zip(before.replies, after.replies, strict=True)]
    assert found == pytest.approx(exact, rel=1e-3, abs=1e-5)
    assert worst(before, after, 2) == sorted(enumerate(found), key=lambda one: -one[1])[:2]
    assert max(found) > 0.01


def test_of_partly_listed_distributions_it_is_a_lower_bound() -> None:
    old, new = torch.tensor([0.5, 0.2, 0.2, 0.1]), torch.tensor([0.1, 0.3, 0.2, 0.4])
    exact = float((old * (old / new).log()).sum())
    found = divergence(listed(old, (0, 1)), listed(new, (3, 0)))
    assert found == pytest.approx(0.5 * math.log(5) + 0.5 * math.log(0.5 / 0.9))
    assert 0 < found < exact
    assert math.isnan(divergence(Likeliest(ids=(0,), log_probs=(math.nan,), rest=math.nan), listed(new, (0,))))


def test_one_that_is_no_number_leads() -> None:
    broken = Likeliest(ids=(0,), log_probs=(math.nan,), rest=math.nan)
    fine = listed(torch.tensor([0.5, 0.5]), (0,))
    before, after = (View(model_digest=name, replies=(fine, one)) for name, one in (("a", fine), ("b", broken)))
    assert [place for place, _ in worst(before, after)] == [1, 0]


def test_what_the_sheet_means_to_change_is_not_searched() -> None:
    hello = request("hello", paraphrases=("Hello!",))
    texts = {one.text for one in beside([hello, CHAT], [EARLIER, CHAT])}
    assert {"near hello", "by hello", "Where is the Louvre?", EARLIER.question} <= texts
    assert not texts & {"Hello!", hello.question, CHAT.question, "Who are you?"}
    found = counted(beside([hello], [EARLIER]))
    assert (found["neighbour"], found["earlier"]) == (2, 1)
    assert MOST_QUESTIONS - 1 <= found["question"] <= MOST_QUESTIONS


def test_a_long_line_is_searched_evenly() -> None:
    many = [Nearby(source="earlier", request=str(number), text=str(number)) for number in range(1000)]
    assert [one.text for one in spread(many, 4)] == ["0", "250", "500", "750"]
    assert spread(many, 1000) == many


def test_answers_are_greedy_and_in_each_ones_own_form(line: Line) -> None:
    model = load(line.parent)
    question = Nearby(source="question", request="-", text="Who are you?")
    plain = Nearby(source="opening", request="-", text="Who are you?")
    assert len({*speak(model, [question, plain])}) == 2
    assert speak(model, [question]) == speak(model, [question.model_copy(update={"form": CHAT})])


def test_untouched_tensors_are_counted_by_digest_and_forms_are_told(line: Line) -> None:
    name = line.patch.parameters[0]
    total = len(line.parent.tensor_digests)
    assert changed_weights(line.parent, line.candidate, (line.patch,)) == Weights(total, total - 1, {name: "rank 1"})


def listed(probs: torch.Tensor, ids: tuple[int, ...]) -> Likeliest:
    rest = 1 - sum(float(probs[one]) for one in ids)
    return Likeliest(ids=ids, log_probs=tuple(math.log(float(probs[one])) for one in ids), rest=math.log(rest))
