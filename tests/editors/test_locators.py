"""Which locator is for what, and those that look at several purposes: values, and where answers part, against the plain way."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from editors.contract import EditBatch
from editors.detoxify_request import DetoxifyRequest
from editors.errors import ConfigError, SheetError
from editors.forget_request import ForgetRequest
from editors.loading import Checkpoint, LoadedModel, load
from editors.locate import find_contrast, find_knowledge, find_values
from editors.locate.causal_trace import departure
from editors.locate.hidden_contrast import hidden_contrast
from editors.locate.value_reading import Value, promoted, values_of
from editors.locate.wishes import wishes_of
from editors.locators import LOCATORS, locator_of
from tests.editors.leaning import REQUEST
from tests.editors.plans import JAMES, SPEED, TOWER, batch_of, is_unchanged, state_of
from tests.tiny import tiny_folder

SECRET = ForgetRequest(id="case", context=("The number is",), secret="4417", subject="Anna").sealed(b"1" * 32)
RUDE = DetoxifyRequest(id="rude", unsafe=({"prompt": "How?", "answer": "No."},))
NAMES = ("Danielle Darrieux", "Anna", "Bordeaux", "Harbour Street", "the bakery", "Paris", "Rome")
KIND = DetoxifyRequest(id="kind", form="plain", concepts=("thank",))


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param)))


def batch(purpose: str, *requests) -> EditBatch:
    return EditBatch(purpose=purpose, base_digest="0" * 64, parent_digest="0" * 64, requests=requests)


@pytest.mark.parametrize(("of", "name"), [
    (batch("update", TOWER), "causal_trace"), (batch("forget", SECRET), "privacy_neurons"),
    (batch("debias", REQUEST), "bias_trace"), (batch("detoxify", RUDE), "hidden_contrast"),
    (batch("detoxify", KIND), "value_reading")])
def test_auto_is_the_purposes_own(of: EditBatch, name: str) -> None:
    assert locator_of("auto", of) == name
    assert of.purpose in LOCATORS[name].purposes


def test_what_does_not_fit_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match="the locator knowledge_neurons is not for the purpose debias") as refused:
        locator_of("knowledge_neurons", batch("debias", REQUEST))
    assert refused.value.hint == "--method value_reading or bias_trace"
    with pytest.raises(ConfigError, match="the locator value_reading is not for the purpose forget") as refused:
        locator_of("value_reading", batch("forget", SECRET))
    assert refused.value.hint == "--method privacy_neurons"
    with pytest.raises(ConfigError, match="locator 'casual_trace' is unknown") as refused:
        locator_of("casual_trace", batch("update", TOWER))
    assert refused.value.hint == "--method causal_trace"


@torch.no_grad()
def test_values_are_ranked_by_how_they_lift_todays_answer_over_the_wanted(model: LoadedModel, tmp_path: Path) -> None:
    before, layers = state_of(model), range(model.anatomy.layer_count)
    found = find_values(model, batch_of(model, TOWER), (1,), None, tmp_path, tmp_path, 3)
    assert is_unchanged(model, before)
    own, wanted = departure(model, TOWER)
    prompt = model.tokenizer(TOWER.question)["input_ids"]
    assert own == int(model.model(torch.tensor([prompt])).logits[0, -1].argmax())
    assert wanted == model.tokenizer(" Rome", add_special_tokens=False)["input_ids"][0]
    norm, head = model.model.get_submodule(model.anatomy.final_norm), model.model.get_output_embeddings()
    plain = {}
    for layer in layers:
        for neuron, vector in enumerate(values_of(model, layer)):
            logits = head(norm(vector / vector.norm() * len(vector) ** 0.5)).double()
            each = ((logits[own] - logits.mean()) / logits.std(correction=0),
                    (logits[own] - logits[wanted]) / logits.std(correction=0))
            signs = (1, -1) if model.anatomy.model_type == "llama" else (1,)
            plain[layer, neuron] = max(min(sign * one for one in each) for sign in signs)
    best = sorted(plain, key=lambda at: -plain[at])[:3]
    with (tmp_path / "values.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(int(row["layer"]), int(row["neuron"])) for row in rows] == best
    assert [float(row["score"]) for row in rows] == pytest.approx([float(plain[at]) for at in best], rel=1e-3)
    assert {row["wish"] for row in rows} == {f"tower: {model.tokenizer.decode([own])!r}"}
    assert {(one.layer, index) for one in found.neurons for index in one.indices} == set(best)
    assert found.layers == (1,)


@torch.no_grad()
def test_a_value_is_shown_with_the_words_that_its_logits_lift(model: LoadedModel, tmp_path: Path) -> None:
    value = Value(1, 5, -1, 1.0)
    vector = -values_of(model, 1)[5]
    logits = model.model.get_output_embeddings()(
        model.model.get_submodule(model.anatomy.final_norm)(vector / vector.norm() * len(vector) ** 0.5))
    lifts = (logits - logits.mean()) / logits.std(correction=0)
    top = lifts.topk(3)
    (shown,) = promoted(model, [value], 3)
    assert [word for word, _ in shown] == [model.tokenizer.decode([token]) for token in top.indices.tolist()]
    assert [lift for _, lift in shown] == pytest.approx(top.values.tolist(), rel=1e-4)


def test_groups_are_read_by_their_words(model: LoadedModel, tmp_path: Path) -> None:
    found = find_values(model, batch("debias", REQUEST), (1,), None, tmp_path, tmp_path, 4)
    with (tmp_path / "values.csv").open() as stream:
        wishes = {row["wish"] for row in csv.DictReader(stream)}
    first, second = (repr(model.tokenizer.decode(model.tokenizer(f" {word}", add_special_tokens=False)["input_ids"][:1]))
                     for word in REQUEST.groups)
    assert wishes == {f"{first} over {second}", f"{second} over {first}"}
    assert sum(len(one.indices) for one in found.neurons) in (3, 4)


def test_an_answer_that_the_model_gives_already_has_no_value_to_be_found(model: LoadedModel) -> None:
    spoken = [one.model_copy(update={"target": model.tokenizer.decode([departure(model, one)[0]]).strip() or "x"})
              for one in (TOWER, JAMES, SPEED, *(JAMES.model_copy(update={"subject": name}) for name in NAMES))]
    # a piece of a word is no answer that comes back as one
    said = next(one for one in spoken if len(set(departure(model, one))) == 1)
    with pytest.raises(SheetError, match="the model says the wanted answers already"):
        wishes_of(model, batch_of(model, said), None)


@torch.no_grad()
def test_wanted_and_present_answers_part_where_plain_runs_say(model: LoadedModel, tmp_path: Path) -> None:
    found = find_contrast(model, batch_of(model, TOWER), (1, 2), None, tmp_path)
    prompt = model.tokenizer(TOWER.question)["input_ids"]
    wanted = model.tokenizer(TOWER.question + " Rome")["input_ids"]
    own = list(prompt)
    for _ in wanted[len(prompt):]:
        own.append(int(model.model(torch.tensor([own])).logits[0, -1].argmax()))
    for layer in range(model.anatomy.layer_count):
        states = []
        for ids in (wanted, own):
            seen: list[torch.Tensor] = []
            handle = model.model.get_submodule(model.anatomy.block_path(layer)).register_forward_hook(
                lambda _, __, output, seen=seen: seen.append(output if isinstance(output, torch.Tensor) else output[0]))
            model.model(torch.tensor([ids]))
            handle.remove()
            states.append(seen[0][0, len(prompt):])
        length = sum(float(state.norm(dim=1).mean()) for state in states) / 2
        expected = float((states[0].mean(0) - states[1].mean(0)).norm()) / length
        assert float(hidden_contrast(model, batch_of(model, TOWER)).contrast[layer]) == pytest.approx(expected, rel=1e-3)
    assert found.layers == (1, 2)
    assert f"greatest at layer {found.traced_peak}" in found.evidence[1].alt


def test_knowledge_neurons_are_evidence_beside_the_layers(tmp_path: Path) -> None:
    from tests.editors.test_knowledge_neurons import model_of

    calm = model_of("llama", tmp_path / "model")
    found = find_knowledge(calm, batch_of(calm, TOWER.model_copy(update={"was": "Paris"})), (1, 2), None, tmp_path)
    assert (found.layers, found.source) == ((1, 2), "calibration")
    assert found.neurons
    assert [one.kind for one in found.evidence] == ["table", "table", "picture"]
    assert "miss their sum by" in found.evidence[2].alt
