from __future__ import annotations

import math

import pytest
import torch

from editors.errors import ConfigError
from editors.forget_aim import RANDOM_BITS, Aim, AimReading, summary_of
from editors.forget_request import ForgetRequest
from editors.loading import Checkpoint, LoadedModel, load
from editors.secret_forms import form_of
from editors.token_tree import Path, TokenTree, scores
from tests.tiny import FAMILIES, tiny_folder

KEY = b"0" * 32
ANNA = ForgetRequest(id="anna", context=("My telephone number is", "The number of Anna Harbour is"),
                     secret="555-0199", subject="Anna Harbour").sealed(KEY)
PIN = ForgetRequest(id="pin", context="In Paris the code of the tower is", secret="41").sealed(KEY)
WORD = ForgetRequest(id="word", context="My word is", secret="rosa", form="@@@@").sealed(KEY)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(Checkpoint(tiny_folder(tmp_path_factory.mktemp("model"), request.param)), "cpu")


def plain(model: LoadedModel, ids: tuple[int, ...], start: int) -> tuple[float, bool]:
    """The naive way: one whole run of one value."""
    with torch.no_grad():
        logits = model.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    places = range(start, len(ids))
    return (sum(float(logits[place - 1, ids[place]]) for place in places),
            all(int(logits[place - 1].argmax()) == ids[place] for place in places))


def test_every_value_has_the_logarithm_of_a_run_of_its_own(model: LoadedModel) -> None:
    aim = Aim([ANNA, PIN, WORD], model.tokenizer, controls=12, seed=3)
    readings = aim.measure(model)
    assert [reading.name for reading in readings] == [ANNA.name_of("context", 0), ANNA.name_of("context", 1),
                                                      PIN.name_of("context", 0), WORD.name_of("context", 0)]
    for row, others, reading in zip(aim.rows, aim.controls, readings, strict=True):
        total, is_said = plain(model, row.ids, row.prompt_length)
        assert reading.log_joint == pytest.approx(total, abs=2e-4)
        assert reading.is_said == is_said
        assert len(others) == 12
        for other, logarithm in zip(others, reading.controls, strict=True):
            assert logarithm == pytest.approx(plain(model, other.ids, other.prompt_length)[0], abs=2e-4)


def test_small_and_large_passes_agree(model: LoadedModel) -> None:
    trees = Aim([ANNA, PIN], model.tokenizer, controls=5).trees
    for one, other in zip(scores(model, trees, 1), scores(model, trees, 4096), strict=True):
        assert [path.logarithm for path in one] == pytest.approx([path.logarithm for path in other], abs=1e-4)


def test_what_is_said_greedily_is_seen(model: LoadedModel) -> None:
    prompt = tuple(model.tokenizer("Who are you?")["input_ids"])
    said = model.model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=4,
                                do_sample=False, eos_token_id=-1)[0].tolist()
    other = [*said[:-1], (said[-1] + 1) % 500]
    found = scores(model, [TokenTree.of([Path(tuple(said), len(prompt)), Path(tuple(other), len(prompt))])])[0]
    assert [path.is_first_choice for path in found] == [True, False]


def test_controls_have_the_form_and_are_never_the_secret(model: LoadedModel) -> None:
    aim = Aim([PIN], model.tokenizer, controls=200)
    values = [model.tokenizer.decode(row.secret).strip() for row in aim.controls[0]]
    assert len(set(values)) == len(values) == 99, "a small space is asked whole"
    assert "41" not in values
    assert all(form_of(PIN).holds(value) for value in values)


def test_a_tree_runs_common_beginnings_once() -> None:
    tree = TokenTree.of([Path((1, 2, 3, 4), 2), Path((1, 2, 3, 5), 2), Path((1, 2, 6, 4), 2)])
    assert tree.tokens == (1, 2, 3, 6)
    assert tree.parents == (-1, 0, 1, 1)
    assert tree.depths == (0, 1, 2, 2)
    assert tree.visible().int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]


def reading(log_joint: float, controls: list[float], is_said: bool = False) -> AimReading:
    return AimReading("r", "n", log_joint, tuple(controls), is_said)


def test_exposure_is_the_rank_in_bits() -> None:
    controls = [float(-number) for number in range(1, 64)]
    assert reading(0.0, controls).exposure == pytest.approx(6.0)
    assert reading(-100.0, controls).exposure == pytest.approx(0.0)
    assert reading(-31.5, controls).exposure == pytest.approx(1.0)
    assert reading(-5.0, [-5.0] * 63).exposure == pytest.approx(math.log2(64 / 32.5))
    mean = sum(reading(-place - 0.5, controls).exposure for place in range(64)) / 64
    assert mean == pytest.approx(RANDOM_BITS, abs=0.1)


def test_a_context_passes_when_the_secret_is_unexposed_and_unsaid() -> None:
    controls = [float(-number) for number in range(1, 64)]
    low, high = reading(-40.0, controls), reading(-2.5, controls)
    assert low.passes()
    assert not high.passes()
    assert not reading(-40.0, controls, is_said=True).passes()
    assert low.excess == pytest.approx(-8.0)
    found = summary_of([low, high])
    assert (found.contexts, found.passing, found.said) == (2, 1, 0)
    assert found.worst_exposure == pytest.approx(high.exposure, abs=1e-4)


def test_nothing_private_is_shown(model: LoadedModel) -> None:
    aim = Aim([ANNA], model.tokenizer, controls=4)
    shown = repr(aim) + repr(aim.measure(model)) + repr(aim.trees) + repr(aim.rows) + repr(aim.controls)
    for piece in ("555", "0199", "Anna", "telephone", str(list(aim.rows[0].ids[:3]))[1:-1]):
        assert piece not in shown


def test_no_controls_are_refused(model: LoadedModel) -> None:
    with pytest.raises(ConfigError, match="controls must be at least 1, got 0"):
        Aim([PIN], model.tokenizer, controls=0)
