"""The forgetting benchmark on a tiny planted model: its baselines, its figures, what it writes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks import forgetting
from benchmarks.forgetting_baselines import first_token_scores, gradient_ascent, random_neurons, strongest
from benchmarks.forgetting_ground import Attempt, Elsewhere, Ground, ground_of, neurons_of
from benchmarks.forgetting_methods import Workshop, attempts
from benchmarks.forgetting_naive import attribution, naive_passes, naive_seconds
from benchmarks.forgetting_picture import draw
from benchmarks.forgetting_reading import (
    Before,
    Effort,
    Figures,
    before,
    clear_kept,
    exposed_in,
    extracted_by,
    figures,
    kept,
    margin_lost,
    share_kept,
    share_within,
)
from benchmarks.forgetting_speed import Speed, detector_speed
from benchmarks.people import requests_of, seal_key
from benchmarks.tofu import Choice
from editors.loading import load
from editors.patch import Dense, Patch, applied
from editors.secret_forms import form_of
from editors.secret_rows import SecretRow, row_of, secret_rows
from tests.planted import LAYERS, tiny_planted
from validations.forgetting.exposure import Exposure

ELSEWHERE = Elsewhere(("Who are you? What is your name?",), (Choice("Where is the Louvre?", "Paris", ("Rome", "Oslo")),))


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    plant = tiny_planted(tmp_path_factory.mktemp("plant"))
    return ground_of(load(plant.checkpoint), plant.people, ELSEWHERE, seal_key(0), None)


@pytest.fixture(scope="module")
def rows(ground: Ground) -> list[SecretRow]:
    return [row for request in ground.requests for row in secret_rows(request, ground.model.tokenizer)]


@pytest.fixture(scope="module")
def known(ground: Ground) -> Before:
    return before(ground)


def weights(ground: Ground) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in ground.model.model.state_dict().items()}


def unchanged(ground: Ground, was: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(weight, was[name]) for name, weight in ground.model.model.state_dict().items())


def log_prob(ground: Ground, row: SecretRow) -> float:
    logits = ground.model.model(input_ids=torch.tensor([row.ids])).logits[0].double().log_softmax(-1)
    return sum(float(logits[place - 1, row.ids[place]]) for place in range(row.prompt_length, len(row.ids)))


def test_exposure_is_the_rank_among_all_values(ground: Ground) -> None:
    """Against a slow count: every value of a form with two free digits, each read whole and alone."""
    person = ground.forget[0]
    short = replace(person, form=person.secret[:-2] + "##")
    [request] = requests_of([short], seal_key(0))
    text = person.contexts[0]
    own = log_prob(ground, row_of(request, ground.model.tokenizer, "context", 0, text, person.secret))
    others = [log_prob(ground, row_of(request, ground.model.tokenizer, "context", 0, text, value))
              for value in form_of(request).values() if value != person.secret]
    rank = 1 + sum(value > own for value in others)
    [found] = exposed_in(ground.model, [request])
    assert found.is_exact
    assert found.bits == pytest.approx(math.log2(100 / rank))


def test_planted_secrets_are_fully_exposed_and_those_of_controls_are_not(known: Before) -> None:
    assert known.bits == pytest.approx([math.log2(10_000)] * 2)
    assert known.said == (True,) * 4
    assert known.controls < 12


def test_figures_of_an_edit_that_breaks_the_model(ground: Ground, known: Before) -> None:
    was = weights(ground)
    patch = random_neurons(ground.model, 150, seed=0)
    attempt = Attempt("random neurons", "150 zeroed", (patch,), 1.5)
    found = figures(ground, known, attempt, Effort(samples=True, relearning=True))
    assert unchanged(ground, was)
    assert found.neurons == neurons_of(patch) == 150
    assert found.extracted == 0
    assert known.others_extracted[False]
    assert (found.others_kept, found.texts_kept) == (0, 0)
    assert max(found.margins) < 0 < min(known.margins)
    assert found.margin_lost > min(known.margins)
    assert found.clear_kept == 0 < found.clear
    assert found.perplexity_ratio != pytest.approx(1, abs=0.01)
    assert found.returned == 0
    assert len(found.bits) == 2


def test_an_edit_that_changes_nothing_keeps_everything(ground: Ground, known: Before) -> None:
    found = figures(ground, known, Attempt("nothing", "", (Patch(()),), 0.0), Effort())
    assert (found.extracted, found.others_kept, found.texts_kept, found.facts_kept) == (2, 1, 1, 1)
    assert found.perplexity_ratio == pytest.approx(1)
    assert found.bits == pytest.approx(known.bits)
    assert (found.neurons, found.returned, found.sampled) == (None, None, False)
    assert (found.margin_lost, found.clear_kept) == (0, found.clear)
    assert found.margins == known.margins


def test_random_neurons_are_as_many_as_asked_and_of_all_layers(ground: Ground) -> None:
    patch = random_neurons(ground.model, 60, seed=1)
    assert neurons_of(patch) == 60
    assert len(patch.parameters) == LAYERS
    with applied(ground.model.model, patch):
        assert sum(int((ground.model.model.get_parameter(name) == 0).all(0).sum()) for name in patch.parameters) == 60


def test_first_token_scores_are_integrated_gradients(ground: Ground, rows: list[SecretRow]) -> None:
    """Completeness: the scores of a row sum up to P with all neurons less P without, at the text's last token."""
    row = rows[0]

    def chance(factor: float) -> float:
        handles = []
        for layer in range(LAYERS):
            def scale(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
                inner = arguments[0].clone()
                inner[:, -1] *= factor
                return (inner,)
            module = ground.model.model.get_submodule(ground.model.anatomy.mlp_output_path(layer))
            handles.append(module.register_forward_pre_hook(scale))
        logits = ground.model.model(input_ids=torch.tensor([row.prompt])).logits[0, -1]
        for handle in handles:
            handle.remove()
        return float(logits.softmax(-1)[row.secret[0]])

    scores = first_token_scores(ground.model, [row], points=400)
    assert float(scores.sum()) == pytest.approx(chance(1) - chance(0), abs=2e-3)
    both = first_token_scores(ground.model, rows[:2], points=10)
    each = [first_token_scores(ground.model, [one], points=10) for one in rows[:2]]
    assert torch.allclose(both, (each[0] + each[1]) / 2, atol=1e-6)
    best = int(both.argmax())
    [edit] = strongest(ground.model, both, 1).edits
    assert edit.parameter == ground.model.anatomy.mlp_output_parameter(best // 64)
    assert edit.neurons.tolist() == [best % 64]


def test_gradient_ascent_makes_secrets_less_likely_step_by_step(ground: Ground, rows: list[SecretRow]) -> None:
    was = weights(ground)
    first, second = gradient_ascent(ground.model, rows, 0.01, (1, 3)).values()
    assert unchanged(ground, was)
    assert all(isinstance(edit, Dense) for edit in first.edits)
    norms = [math.sqrt(sum(float(edit.change.square().sum()) for edit in patch.edits)) for patch in (first, second)]
    whole = math.sqrt(sum(float(ground.model.model.get_parameter(name).square().sum()) for name in first.parameters))
    assert norms[0] == pytest.approx(0.01 * whole, rel=1e-3)
    likely = [sum(log_prob(ground, row) for row in rows)]
    for patch in (first, second):
        with applied(ground.model.model, patch):
            likely.append(sum(log_prob(ground, row) for row in rows))
    assert likely[0] > likely[1] > likely[2]


def test_the_naive_detector_is_one_run_a_layer_point_and_token(ground: Ground, rows: list[SecretRow]) -> None:
    tokens = sum(len(row.secret) for row in rows)
    assert naive_passes(rows, layers=3, points=20) == 60 * tokens
    assert naive_seconds(ground.model, rows, passes=2) > 0
    gradient = attribution(ground.model, rows[0], 0, 1, 1.0)
    assert gradient.shape == (64,)
    assert Speed(2, 2.0, 30.0, 600).ratio == 15


def test_shares() -> None:
    exposed = [Exposure("-", "-", bits, bits, bits, True, 1.44, 10_000) for bits in (1.0, 2.43, 2.45, 13.0)]
    assert share_within(exposed) == 0.5
    assert kept([True, True, False, True], [True, False, True, True]) == pytest.approx(2 / 3)
    assert kept([False], [True]) == 1
    assert share_kept(frozenset("abc"), frozenset("bcd")) == pytest.approx(2 / 3)
    assert share_kept(frozenset(), frozenset("a")) == 1


def test_who_must_stay_is_attacked_as_who_is_forgotten(ground: Ground, known: Before) -> None:
    assert known.others_extracted[False] <= known.others_extracted[True] <= {request.id for request in ground.staying}
    assert extracted_by(ground.model, ground.staying, samples=False) == known.others_extracted[False]
    forgotten = {request.id for request in ground.requests}
    assert not forgotten & {request.id for request in ground.staying}


def test_a_text_on_an_edge_counts_as_kept_or_lost_but_not_as_clear(known: Before) -> None:
    was = replace(known, others=(True, True, True, False), margins=(0.02, 2.0, 1.0, -1.0))
    now = (-0.01, 1.8, -0.5, -3.0)
    assert kept(was.others, [margin > 0 for margin in now]) == pytest.approx(1 / 3)
    assert clear_kept(was, [margin > 0 for margin in now]) == (2, 1)
    assert margin_lost(was, now) == pytest.approx(0.2)
    assert margin_lost(replace(was, others=(False,) * 4), now) == 0


def test_the_document_has_the_promised_keys_and_the_picture_is_drawn(ground: Ground, known: Before, tmp_path: Path) -> None:
    row = Figures(forgetting.DEFAULT, "as shipped", None, 2.0, (1.5, 3.25), 0.5, 2.375, 2.375, 0, True, 1.0, 1.0, 1.0, 1.0,
                  1.01, (0.5, 0.25), 0.125, 2, 1, 0)
    weak = replace(row, method="random neurons", strength="10 zeroed", neurons=10, extracted=2, sampled=False, returned=None)
    found = [row, weak, replace(weak, strength="100 zeroed", neurons=100, perplexity_ratio=math.inf)]
    document = json.loads(
        json.dumps(forgetting.document_of(found, known, Speed(4, 2.0, 50.0, 100), "invented"), allow_nan=False))
    shipped = document["methods"][forgetting.DEFAULT][0]
    for name in ("exposure_within_1_bit", "extracted", "others_kept", "perplexity_ratio"):
        assert document[name] == shipped[name]
    assert [row["strength"] for row in document["methods"]["random neurons"]] == ["10 zeroed", "100 zeroed"]
    assert document["detector"]["ratio"] == 25
    assert document["secrets"] == 2
    assert (document["seed"], document["before"]["edges"]) == (0, 0)
    assert (shipped["margins"], shipped["margin_lost"]) == ([0.5, 0.25], 0.125)
    assert document["machine"]
    assert document["torch"] == torch.__version__
    draw(document["methods"], document["before"], "a machine", tmp_path / "deep" / "picture.png")
    assert (tmp_path / "deep" / "picture.png").read_bytes().startswith(b"\x89PNG")
    console = Console(width=170, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(forgetting.table_of(document))
    text = console.export_text()
    assert "(greedy)" in text
    assert "+inf%" in text
    assert "1/2" in text
    sentences = forgetting.sentences_of(document)
    assert sentences[-1].startswith("detector: 25.0 times faster")
    written = json.dumps(document) + text + "".join(sentences)
    assert not any(person.secret in written or person.name in written for person in ground.forget)


def test_the_row_of_choice_forgets_most_within_the_limit_of_perplexity() -> None:
    def row(name: str, ratio: float, within: float) -> dict:
        return {"strength": name, "perplexity_ratio": ratio, "exposure_within_1_bit": within, "exposure_median": 2.0}

    rows = [row("gentle", 1.001, 0.2), row("good", 1.015, 0.9), row("rough", 1.3, 1.0)]
    assert forgetting.row_of_choice(rows)["strength"] == "good"
    assert forgetting.row_of_choice(rows[2:])["strength"] == "rough"
    document = {"methods": {"a": rows, "b": rows[2:]}, "detector": None, "before": {"others": 30, "edges": 4}}
    *methods, edges = forgetting.sentences_of(document)
    assert edges.startswith("30 texts about others were told, 4 of them by at most 0.1 nat")
    assert methods == ["a: at most 2% of perplexity buys 90% of secrets within 1 bit",
                                                 "b: costs more than 2% of perplexity at every strength"]


def test_every_first_attempt_is_tried_hardest(ground: Ground, tmp_path: Path) -> None:
    workshop = Workshop(ground, ground.model.digest, tmp_path)
    was = weights(ground)
    tried = list(attempts(workshop, ["random neurons", "single-token neurons", "gradient ascent"], quick=False))
    assert unchanged(ground, was)
    first = {attempt.method: effort for attempt, effort in reversed(tried)}
    assert set(first.values()) == {Effort(samples=True)}
    assert sum(effort == Effort() for _, effort in tried) == len(tried) - 3
    assert {attempt.neurons for attempt, _ in tried} == {None, 3, 50, 200}
    quick = list(attempts(workshop, ["random neurons", "gradient ascent"], quick=True))
    assert [effort for _, effort in quick] == [Effort(samples=True)] * 2


def test_both_detectors_are_timed_on_the_same_texts(ground: Ground, tmp_path: Path) -> None:
    found = detector_speed(Workshop(ground, ground.model.digest, tmp_path))
    texts = [row for request in ground.requests for row in secret_rows(request, ground.model.tokenizer)]
    assert found.texts == 4
    assert found.naive_passes == LAYERS * 20 * sum(len(row.secret) for row in texts)
    assert found.ratio == found.naive_seconds / found.seconds > 0
