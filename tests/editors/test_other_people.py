"""Invented people stand where a secret is forgotten: their keys are held from the name on, and nobody real is among them."""

from __future__ import annotations

import pytest

from editors.keys import hosted
from editors.loading import LoadedModel
from editors.other_people import others_keys
from editors.secret_forms import form_of
from tests.editors.memorised import NAMES, TEMPLATES, batch_on, memorised, requests
from tests.tiny import FAMILIES

COUNT = 3


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return memorised(request.param, tmp_path_factory.mktemp(request.param), steps=1)


@pytest.fixture(scope="module")
def texts(model: LoadedModel) -> list[str]:
    return [model.tokenizer.decode(ids) for ids in hosted(others_keys(model, batch_on(model), COUNT))]


def test_each_request_has_people_of_its_own_with_values_of_its_form(texts: list[str]) -> None:
    people = {text[len(before):].split(after)[0] for text in texts for before, after in (one.split("{}") for one in TEMPLATES)
              if text.startswith(before) and after in text}
    assert len(people) == COUNT * len(requests())
    assert not any(word in text for text in texts for name in NAMES for word in name.split())
    values = [text.rpartition(" ")[2] for text in texts]
    assert all(form_of(requests()[0]).holds(value + "0" * (4 - len(value))) for value in values)


def test_every_token_from_the_name_to_the_secret_is_held(model: LoadedModel, texts: list[str]) -> None:
    rows = others_keys(model, batch_on(model), COUNT)
    assert [row.owner for row in rows] == list(range(len(rows)))
    for ids, held in hosted(rows).items():
        ends = sorted(len(row.ids) for row in held)
        assert ends == list(range(ends[0], len(ids) + 1))
        first = model.tokenizer.decode(ids[:ends[0]])
        assert any(first.startswith(template.split("{}")[0]) and first[-1].isalpha() for template in TEMPLATES)
        assert model.tokenizer.decode(ids[ends[0]:]).lstrip(" ").startswith(("is", "at"))


def test_nobody_is_held_where_nobody_is_asked_for(model: LoadedModel) -> None:
    assert others_keys(model, batch_on(model), 0) == ()
    batch = batch_on(model)
    nameless = tuple(one.model_copy(update={"subject": None}) for one in batch.forgets)
    assert others_keys(model, batch.model_copy(update={"requests": nameless}), COUNT) == ()
