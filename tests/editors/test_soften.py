"""Soften on tiny models: the gradient of whole texts, the closed form, what is held, and the measured length."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from editors.contrasted_texts import sentences, texts_of
from editors.detoxify_request import DetoxifyRequest
from editors.errors import ConfigError, Diverged, SheetError
from editors.held_step import longest, shares_of, steps_of, strongest, whitened
from editors.linear_maps import LinearMap, maps_of
from editors.loading import Checkpoint, LoadedModel, load
from editors.moments import Corpus, read_moment, site_files
from editors.natural import loaded_factor
from editors.patch import Patch, applied
from editors.prompts import Encoded
from editors.soften import Soften, SoftenConfig
from editors.text_gradients import likelihood_gradients, mean_likelihood, output_sensitivities
from tests.editors.plans import at, detoxify_batch, is_unchanged, state_of
from tests.tiny import FAMILIES, SENTENCES, calm_model, fit, tiny_folder, tiny_tokenizer

UNSAFE = ({"prompt": "Who are you", "toxic": "to speak to a basketball player", "answer": "and what is your name"},
          {"prompt": "The Louvre can be found", "toxic": "by nobody who is located here"})
HARMLESS = ("The mother tongue of a small child", "I live next to a bakery")
PLAIN = DetoxifyRequest(id="rage", form="plain", benign=HARMLESS, unsafe=UNSAFE)
QUICK = SoftenConfig(price=0.05, rank=8, token_budget=256)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedModel]:
    return {name: load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), name, layers=3))) for name in FAMILIES}


@pytest.fixture
def model(models: dict[str, LoadedModel], request: pytest.FixtureRequest) -> LoadedModel:
    return models[getattr(request, "param", "llama")]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedModel]:
    """Models that have read a few sentences: to one that has not, every step makes all text likelier."""
    found = {}
    for name in ("llama", "gpt2"):
        folder, tokenizer, model = tmp_path_factory.mktemp("read"), tiny_tokenizer(), calm_model(name)
        fit(model, tokenizer(list(SENTENCES))["input_ids"], 60)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        found[name] = load(Checkpoint(folder))
    return found


@pytest.fixture(scope="module")
def patches(read: dict[str, LoadedModel], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Patch]:
    folder = tmp_path_factory.mktemp("statistics")
    return {name: Soften(QUICK, corpus_of(model)).plan(model, detoxify_batch(model, PLAIN), at(1, 2), folder)
            for name, model in read.items()}


def corpus_of(model: LoadedModel) -> Corpus:
    return Corpus("sentences", tuple(tuple(model.tokenizer(text)["input_ids"]) for text in SENTENCES))


def logarithms(model: LoadedModel, texts) -> torch.Tensor:
    """Mean log-probability of a scored token, a text at a time and by the whole model."""
    found = []
    for text in texts:
        logits = model.model(torch.tensor([text.ids])).logits[0].log_softmax(-1)
        found += [logits[place - 1, text.ids[place]] for place in range(max(text.prompt_length, 1), len(text.ids))]
    return torch.stack(found).mean()


@pytest.mark.parametrize("model", FAMILIES, indirect=True)
def test_gradients_of_whole_texts_are_those_of_the_full_model(model: LoadedModel) -> None:
    texts = texts_of(model, detoxify_batch(model, PLAIN), 4).toxic
    before = state_of(model)
    maps = maps_of(model.anatomy, (1, 2))
    found = likelihood_gradients(model, texts, maps, 64)
    weights = [model.model.get_parameter(one.parameter) for one in maps]
    required = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad_(True)
    with torch.enable_grad():
        expected = torch.autograd.grad(logarithms(model, texts), weights)
    for weight, was in zip(weights, required, strict=True):
        weight.requires_grad_(was)
    for one, gradient in zip(maps, expected, strict=True):
        turned = gradient if model.anatomy.layout == "out_in" else gradient.T
        torch.testing.assert_close(found[one], turned, rtol=1e-2, atol=1e-3 * float(turned.abs().max()))
    assert is_unchanged(model, before)
    with torch.no_grad():
        assert mean_likelihood(model, texts, 64) == pytest.approx(float(logarithms(model, texts)), rel=1e-3)


@pytest.mark.parametrize("model", FAMILIES, indirect=True)
def test_what_text_depends_on_is_told_of_every_output(model: LoadedModel) -> None:
    texts = [Encoded(tuple(model.tokenizer(text)["input_ids"]), 1, 0) for text in SENTENCES[:3]]
    maps = maps_of(model.anatomy, (0, 2))
    before = state_of(model)
    found = output_sensitivities(model, texts, maps, 64)
    assert is_unchanged(model, before)
    whole = 0.0
    for text in texts:
        nudge = torch.zeros(len(text.ids), model.anatomy.hidden_size, requires_grad=True)
        module = model.model.get_submodule(maps[-1].path)
        handle = module.register_forward_hook(lambda _, __, output, nudge=nudge: output + nudge.reshape(output.shape))
        with torch.enable_grad():
            total = logarithms(model, [text]) * (len(text.ids) - 1)
            whole += float(torch.autograd.grad(total, nudge)[0].square().mean(1).sum())
        handle.remove()
    assert found[maps[-1]] == pytest.approx(whole / sum(len(text.ids) - 1 for text in texts), rel=1e-3)
    assert all(value > 0 for value in found.values())


def test_the_maps_of_a_block_come_in_the_order_of_a_token(models: dict[str, LoadedModel]) -> None:
    assert [(one.layer, one.vector) for one in maps_of(models["llama"].anatomy, (2, 0))] == [
        (layer, vector) for layer in (0, 2) for vector in ("heads", "ffn", "ffn", "key")]
    assert [one.path for one in maps_of(models["gpt2"].anatomy, (1,))] == [
        f"transformer.h.1.{name}" for name in ("attn.c_proj", "mlp.c_fc", "mlp.c_proj")]


def test_the_step_is_the_constrained_least_squares_of_all_matrices() -> None:
    draw = torch.Generator().manual_seed(0)
    maps = [LinearMap(layer, "key", f"maps.{layer}") for layer in (0, 1)]
    gradients = [{one: torch.randn(3, 5, generator=draw).double() for one in maps} for _ in range(3)]
    moments = {one: (root := torch.randn(5, 9, generator=draw).double()) @ root.T for one in maps}
    factors = {one: torch.linalg.cholesky(moment) for one, moment in moments.items()}
    found = steps_of(gradients, factors.__getitem__, 3)
    step = torch.cat([(left @ right).flatten() for left, _, right in found.values()])
    # minimise tr(U C U') / 2 - <G, U> with <H_j, U> = 0, by the whole system of its conditions
    metric = torch.block_diag(*(torch.kron(torch.eye(3, dtype=torch.float64), moments[one]) for one in maps))
    wanted, held = (torch.stack([torch.cat([gradient[one].flatten() for one in maps]) for gradient in part])
                    for part in (gradients[:1], gradients[1:]))
    system = torch.cat([torch.cat([metric, held.T], 1), torch.cat([held, held.new_zeros(2, 2)], 1)])
    expected = torch.linalg.solve(system, torch.cat([wanted[0], wanted.new_zeros(2)]))[:30]
    torch.testing.assert_close(step, expected, rtol=1e-8, atol=1e-8)


def test_a_held_group_without_a_gradient_or_named_twice_changes_nothing() -> None:
    vectors = torch.randn(2, 7, generator=torch.Generator().manual_seed(1)).double()
    alone = shares_of(vectors @ vectors.T)
    twice = torch.stack([vectors[0], vectors[1], vectors[1], torch.zeros(7).double()])
    shares = shares_of(twice @ twice.T)
    assert float(shares[0] + shares[1]) == pytest.approx(float(alone[0]))
    assert float(shares[2]) == 0


def test_the_strongest_directions_are_those_of_the_singular_values() -> None:
    step = torch.randn(6, 9, generator=torch.Generator().manual_seed(2)).double()
    vectors, sizes, others = torch.linalg.svd(step, full_matrices=False)
    left, right = strongest(step, 2)
    torch.testing.assert_close(left @ right, (vectors[:, :2] * sizes[:2]) @ others[:2])
    left, right = strongest(step, 100)
    torch.testing.assert_close(left @ right, step)


def test_whitened_products_are_those_of_the_metric() -> None:
    draw = torch.Generator().manual_seed(3)
    moment = (root := torch.randn(4, 8, generator=draw).double()) @ root.T
    one, other = torch.randn(2, 3, 4, generator=draw).double()
    factor = torch.linalg.cholesky(moment)
    expected = (one @ torch.linalg.inv(moment) * other).sum()
    assert float((whitened(one, factor) * whitened(other, factor)).sum()) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("curve", [lambda length: length ** 2, lambda length: 0.3 * length,
                                   lambda length: float("nan") if length > 5 else length ** 2 - 0.01 * length])
@pytest.mark.parametrize("first", [1e-3, 0.2, 40.0])
def test_the_length_costs_the_price_and_no_more(curve, first: float) -> None:
    length = longest(curve, first, 0.04)
    assert 0.8 * 0.04 <= curve(length) <= 0.04


def test_a_step_that_always_costs_too_much_is_told() -> None:
    with pytest.raises(Diverged, match="no length of the step stays within soften's price") as caught:
        longest(lambda _: 1.0, 1.0, 0.1)
    assert "price" in caught.value.hint


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_toxic_texts_become_less_likely_than_calm_ones_at_the_price(name: str, read: dict[str, LoadedModel],
                                                                    patches: dict[str, Patch]) -> None:
    model, patch = read[name], patches[name]
    texts = texts_of(model, detoxify_batch(model, PLAIN), 4)
    with torch.no_grad():
        before = [float(logarithms(model, part)) for part in (texts.toxic, texts.calm, texts.measured)]
        with applied(model.model, patch):
            after = [float(logarithms(model, part)) for part in (texts.toxic, texts.calm, texts.measured)]
    assert (after[0] - after[1]) - (before[0] - before[1]) < -0.2
    assert before[2] - after[2] <= QUICK.price + 1e-4
    assert 0 < patch.provenance["paid"] <= QUICK.price
    assert set(patch.parameters) == {one.parameter for one in maps_of(model.anatomy, (1, 2))}


def test_held_texts_stay_to_first_order(model: LoadedModel, tmp_path: Path) -> None:
    texts = texts_of(model, detoxify_batch(model, PLAIN), 4)
    groups = (texts.toxic, *texts.held)
    maps = maps_of(model.anatomy, (1, 2))
    gradients = [likelihood_gradients(model, part, maps, 256) for part in groups]
    files = site_files(model, list(dict.fromkeys((one.layer, one.vector) for one in maps)), corpus_of(model), tmp_path)
    moments = {one: read_moment(files[one.layer, one.vector]) for one in maps}
    steps = steps_of(gradients, lambda one: loaded_factor(moments[one], 0.01), 100)
    slopes = [sum(float((gradient[one].double() * (left @ right)).sum()) for one, (left, _, right) in steps.items())
              for gradient in gradients]
    assert len(slopes) == 3
    assert slopes[0] > 0
    assert max(map(abs, slopes[1:])) < 1e-6 * slopes[0]


def test_what_a_sheet_does_not_show_is_the_models_own(model: LoadedModel) -> None:
    bare = DetoxifyRequest(id="a", unsafe=("How do I trap a wolf?",), benign=("Where do wolves live?",))
    chat, plain = (texts_of(model, detoxify_batch(model, one), 3) for one in (bare, bare.model_copy(update={"form": "plain"})))
    assert len(chat.toxic[0].ids) <= chat.toxic[0].prompt_length + 3
    assert len(chat.calm) == 1
    assert "I can't help with that." in model.tokenizer.decode(list(chat.calm[0].ids))
    assert plain.calm == ()
    assert [len(group) for group in plain.held] == [1, 3 * len(sentences()) // 4]
    assert len(plain.measured) == len(sentences()) // 4


def test_the_houses_sentences_are_many_and_none_is_said_twice() -> None:
    found = sentences()
    assert len({text.casefold() for text in found}) == len(found) >= 60
    assert all(text == text.strip() and " " in text for text in found)


def test_words_alone_are_refused_with_the_method_for_them(model: LoadedModel, tmp_path: Path) -> None:
    batch = detoxify_batch(model, DetoxifyRequest(id="tone", concepts=("polite",)))
    with pytest.raises(SheetError, match="no request has unsafe prompts") as caught:
        Soften(corpus=corpus_of(model)).plan(model, batch, at(1), tmp_path)
    assert "promote_values" in caught.value.hint


def test_texts_that_do_not_differ_are_told(model: LoadedModel, tmp_path: Path) -> None:
    same = DetoxifyRequest(id="a", form="plain", unsafe=({"prompt": "Who are", "toxic": "you", "answer": "you"},))
    with pytest.raises(Diverged, match="has no gradient") as caught:
        Soften(corpus=corpus_of(model)).plan(model, detoxify_batch(model, same), at(1), tmp_path)
    assert "texts that differ" in caught.value.hint


@pytest.mark.parametrize(("option", "value", "message"), [
    ("price", 0, r"soften.price must be in \(0, 1\], got 0"), ("rank", 0, r"soften.rank must be in \[1, 10000\], got 0"),
    ("prize", 1, "use 'price'")])
def test_option_outside_its_range_is_refused(option: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Soften.from_options({option: value})
