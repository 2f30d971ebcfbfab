"""Exposure against a slow loop over every value, one full forward each."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from editors.errors import SheetError
from editors.forget_request import ForgetRequest
from editors.loading import LoadedModel
from editors.secret_forms import form_of
from editors.secret_rows import row_of
from tests.tiny import FAMILIES
from tests.validations.forgetting.planted import memorised, request, untrained
from validations.forgetting import counting
from validations.forgetting.counting import Tree, counted
from validations.forgetting.exposure import clopper_pearson, exposures, mean_of_others
from validations.forgetting.settings import ForgetSettings
from validations.forgetting.spaces import Place

EXACT = ForgetSettings(exposure_nodes=10_000)
SAMPLED = ForgetSettings(exposure_nodes=1, exposure_samples=200)
SHORT = {"secret": "48", "form": "##"}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return untrained(tmp_path_factory.mktemp("model"), request.param)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return untrained(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return memorised(untrained(tmp_path_factory.mktemp("leaking")), [request(0), request(1)])


@pytest.fixture(scope="module")
def merging(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """Its tokenizer joins some digits: "12" and "555" are one token."""
    return untrained(tmp_path_factory.mktemp("merging"), splits=False)


def slow_log_prob(model: LoadedModel, ids: tuple[int, ...], start: int) -> float:
    with torch.inference_mode():
        log_probs = model.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(log_probs[place - 1, ids[place]]) for place in range(start, len(ids)))


def slow_bits(model: LoadedModel, one: ForgetRequest, text: str) -> float:
    """Definition 2 and eq. 1, value by value."""
    form, secret = form_of(one), one.secret.get_secret_value()
    found = {}
    for value in form.values():
        row = row_of(one, model.tokenizer, "context", 0, text, value)
        found[value] = slow_log_prob(model, row.ids, row.prompt_length)
    above = sum(log_prob > found[secret] + 1e-4 for value, log_prob in found.items() if value != secret)
    tied = sum(abs(log_prob - found[secret]) <= 1e-4 for value, log_prob in found.items() if value != secret)
    return math.log2(form.size) - math.log2(1 + above + tied / 2)


def test_exact_exposure_equals_the_slow_loop(model: LoadedModel) -> None:
    requests = [request(0, **SHORT), request(1, secret="7-3x", form="#-#x")]
    found = exposures(model, requests, EXACT)
    texts = [(one, text.get_secret_value()) for one in requests for text in one.context]
    assert [one.bits for one in found] == pytest.approx([slow_bits(model, one, text) for one, text in texts], abs=1e-9)
    assert all(one.is_exact and one.low == one.bits == one.high for one in found)
    assert [one.name for one in found] == [one.name_of("context", index) for one in requests for index in range(2)]


def test_merged_digits_are_ranked_as_tokens(merging: LoadedModel) -> None:
    one = request(0, secret="12 5", form="## #", context=["I live at"])
    place = Place(merging.tokenizer, "I live at")
    assert len(place.encode(["12 5"])[0]) < len(place.encode(["48 5"])[0]), "the tokenizer merges nothing: a void test"
    assert place.product(form_of(one)) is None
    [found] = exposures(merging, [one], EXACT)
    assert found.is_exact
    assert found.bits == pytest.approx(slow_bits(merging, one, "I live at"), abs=1e-9)


def test_single_digits_are_a_product_and_letters_are_not(plain: LoadedModel) -> None:
    place = Place(plain.tokenizer, "The code is")
    product = place.product(form_of(request(0, secret="48-21", form="##-##")))
    assert product is not None
    assert [len(choices) for choices in product.places] == [10, 10, 1, 10, 10]
    assert product.nodes == 10 + 100 + 100 + 1000
    assert place.product(form_of(request(0, secret="the", form="@@@"))) is None


def test_counting_out_changes_no_count(leaking: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def tree(one: ForgetRequest) -> Tree:
        text = one.context[1].get_secret_value()
        space = Place(leaking.tokenizer, text).product(form_of(one))
        assert space is not None
        row = row_of(one, leaking.tokenizer, "context", 1, text, one.secret.get_secret_value())
        return Tree(space, row.ids[len(space.prompt):])

    trees = [tree(request(0, secret="482", form="###")), tree(request(1, secret="999", form="###"))]
    pruned = counted(leaking, trees)
    with monkeypatch.context() as patched:
        patched.setattr(counting, "may_lead_above", lambda reached, bound: reached == reached)
        whole = counted(leaking, trees)
    assert [one.nodes for one in whole] == [110, 110]
    assert [(one.above, one.tied) for one in pruned] == [(one.above, one.tied) for one in whole]
    assert sum(one.nodes for one in pruned) < 220
    monkeypatch.setattr(counting, "ROWS_AT_MOST", 7)
    assert [(one.above, one.tied, one.nodes) for one in counted(leaking, trees)] == [
        (one.above, one.tied, one.nodes) for one in pruned]


def test_a_memorised_secret_is_the_first_of_its_form(leaking: LoadedModel) -> None:
    found = exposures(leaking, [request(0), request(1)], ForgetSettings(exposure_nodes=100))
    assert [one.bits for one in found] == [math.log2(10_000)] * 4
    assert all(one.is_exact for one in found), "high secrets are ranked exactly within few nodes"
    assert all(one.over_controls > 11 for one in found)


def test_the_sampled_interval_covers_the_exact_value(plain: LoadedModel) -> None:
    requests = [request(number, secret=secret, form="###") for number, secret in enumerate(("482", "730", "125", "604"))]
    exact, sampled = exposures(plain, requests, EXACT), exposures(plain, requests, SAMPLED)
    assert not any(one.is_exact for one in sampled if one.compared == 200)
    assert sum(one.compared == 200 for one in sampled) >= 6
    covered = [one.low <= other.bits <= one.high for one, other in zip(sampled, exact, strict=True)]
    assert sum(covered) >= 7
    assert all(one.low <= one.bits <= one.high for one in sampled)


def test_a_model_that_holds_all_values_equal_exposes_one_bit(tmp_path: Path) -> None:
    mute = untrained(tmp_path / "mute")
    with torch.no_grad():
        mute.model.get_output_embeddings().weight.zero_()
    [found] = exposures(mute, [request(0, **SHORT)], EXACT, texts=1)
    assert found.bits == pytest.approx(math.log2(100) - math.log2(50.5))


def test_a_model_of_no_numbers_counts_nothing_above(tmp_path: Path) -> None:
    broken = untrained(tmp_path / "broken")
    with torch.no_grad():
        broken.model.get_output_embeddings().weight.fill_(torch.nan)
    [found] = exposures(broken, [request(0, **SHORT)], EXACT, texts=1)
    assert found.bits == math.log2(100)


def test_the_mean_of_all_others_is_known(plain: LoadedModel) -> None:
    one = request(0, **SHORT)
    every = [exposures(plain, [request(0, secret=value, form="##")], EXACT, texts=1)[0] for value in form_of(one).values()]
    for own in every[::17]:
        mean = (sum(other.bits for other in every) - own.bits) / 99
        assert own.controls == pytest.approx(mean, abs=0.02), "ties alone make a difference"
    assert mean_of_others(10**7, 1.0) == pytest.approx(1 / math.log(2), abs=1e-4)


def test_clopper_pearson_is_the_published_interval() -> None:
    scipy = pytest.importorskip("scipy.stats")
    for found, count in ((0, 20), (1, 20), (10, 20), (64, 128), (20, 20)):
        expected = scipy.binomtest(found, count).proportion_ci(0.95, method="exact")
        assert clopper_pearson(found, count) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_a_form_that_does_not_fit_is_refused_without_quoting(plain: LoadedModel) -> None:
    with pytest.raises(SheetError, match="does not have the form given") as refused:
        exposures(plain, [request(0, form="###")])
    assert "4821" not in str(refused.value)
